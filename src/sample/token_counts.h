// How often each token stands in a sequence: what the penalties depend on.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/types/span.h>

#include <cstdint>

#include "core/sampling_params.h"

namespace kvasir::sample {

// Whether `params` uses any penalty, so that the counts are needed at all.
bool UsesPenalties(const SamplingParams& params);

// A value; rebuilt from the ids wherever a sequence is taken up.
class TokenCounts {
 public:
  void AddPrompt(absl::Span<const TokenId> ids) {
    for (TokenId id : ids) counts_.try_emplace(id, 0);
  }
  void AddOutput(TokenId id) { ++counts_[id]; }

  // The tokens that occur, each with its count among the output tokens, in no particular order.
  const absl::flat_hash_map<TokenId, int32_t>& counts() const { return counts_; }

 private:
  absl::flat_hash_map<TokenId, int32_t> counts_;
};

}  // namespace kvasir::sample
