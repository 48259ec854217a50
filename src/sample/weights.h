// The softmax in integers: a token's weight is exp((logit - max) / temperature) in 44-bit fixed
// point. Integer sums do not depend on their order, so truncation and choice are exact and the
// same on every machine; exp is a polynomial in plain float operations for the same reason.
// A token more than 30.5 below the maximum has weight 0: a probability under 6e-14 of the best's.
#pragma once

#include <absl/types/span.h>

#include <array>
#include <cstdint>
#include <optional>

#include "core/sampling_params.h"

namespace kvasir::sample {

inline constexpr int32_t kLanes = 16;                // tokens computed at a time
inline constexpr uint64_t kOne = uint64_t{1} << 44;  // the weight of the best token

struct Best {
  float logit = 0;
  TokenId id = 0;  // ties go to the lower id
};

// The largest logit, or nothing when the row is empty, or holds a NaN, a +infinity or no finite
// value. -infinity is allowed: it marks a masked token.
std::optional<Best> FindBest(absl::Span<const float> logits);

// True when every value is finite.
bool AllFinite(absl::Span<const float> logits);

// A row of logits as weights.
struct WeightedRow {
  absl::Span<const float> logits;  // [vocab]; without NaN and +infinity
  float max = 0;                   // the largest of them; finite
  float temperature = 1;           // > 0
  uint64_t min_weight = 1;         // a smaller weight counts as 0

  // The scaled distances below the maximum, (logit - max) / temperature, of `kLanes` tokens from
  // `first` on, -infinity behind the row's end, and the weights that belong to them.
  std::array<float, kLanes> Scaled(size_t first) const;
  std::array<uint64_t, kLanes> Weights(const std::array<float, kLanes>& scaled) const;
};

// The sum of the weights of tokens [first, first + count), cut at the row's end. `first` is a
// multiple of kLanes.
uint64_t SumWeights(const WeightedRow& row, size_t first, size_t count);

}  // namespace kvasir::sample
