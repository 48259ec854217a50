// Drafts without a model: what followed the last three tokens when they last stood in the sequence
// (prompt lookup, Saxena 2023). Meant for edits, quotations and code; prose repeats little.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/types/span.h>

#include <cstdint>
#include <vector>

#include "core/sampling_params.h"

namespace kvasir::engine {

// Of one sequence, whose tokens it is shown as they come. Copyable.
class PromptLookup {
 public:
  // The tokens that followed, at most `most`, perhaps none. `tokens` are all of the sequence's, of
  // which a call sees no fewer than the one before.
  std::vector<TokenId> Propose(absl::Span<const TokenId> tokens, int32_t most);

 private:
  static constexpr int32_t kGram = 3;
  // Three ids of 21 bits: every vocabulary is smaller.
  static uint64_t Key(const TokenId* gram);

  absl::flat_hash_map<uint64_t, int32_t> next_;  // gram -> position behind its last occurrence
  int32_t seen_ = 0;                             // tokens whose grams are in next_
};

}  // namespace kvasir::engine
