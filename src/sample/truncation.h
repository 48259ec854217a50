// Min-p, top-k and top-p without sorting the vocabulary.
//
// Tokens are ordered by logit, the better first, ties to the lower id. In this order min-p drops
// what weighs less than min_p of the best, top-k keeps the first k, and top-p the shortest prefix
// of those whose weight reaches top_p of theirs. A histogram over the distance to the maximum
// bounds the prefix, so that only its candidates are looked at one by one. The result is exact.
#pragma once

#include <cstdint>
#include <vector>

#include "core/sampling_params.h"
#include "sample/weights.h"

namespace kvasir::sample {

struct Candidate {
  TokenId id = 0;
  float logit = 0;
  uint64_t weight = 0;  // > 0
};

// Scratch that is reused between calls; one thread at a time.
class Truncation {
 public:
  // The tokens that survive, in the order of their ids: at least one. `row.min_weight` has done
  // min-p's part. REQUIRES: top_k > 0 or top_p < 1. Valid until the next call.
  const std::vector<Candidate>& Keep(const WeightedRow& row, int32_t top_k, float top_p);

 private:
  static constexpr int kBins = 256;
  static constexpr float kBinsPerUnit = 8;  // so that weight 0 lies within the last bin

  void Count(const WeightedRow& row);
  void Gather(const WeightedRow& row, int last_bin);
  void KeepFirst(uint64_t count);
  void KeepWeight(uint64_t target);
  void DropAfter(const Candidate& last);

  uint64_t bin_weight_[kBins];
  uint64_t bin_count_[kBins];
  std::vector<Candidate> candidates_;  // in id order
  std::vector<Candidate> edge_;        // those among which the last one to keep is looked for
};

}  // namespace kvasir::sample
