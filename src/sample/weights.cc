#include "sample/weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace kvasir::sample {
namespace {

using Floats = std::array<float, kLanes>;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Below it exp(z) * 2^44 rounds to 0; also keeps the exponent arithmetic in range.
constexpr float kLowest = -40.0f;

// Four lanes at a time, in the compilers' portable vector types; each lane's operations are the
// plain IEEE ones, whatever instructions they become.
using Float4 = float __attribute__((vector_size(16)));
using Int4 = int32_t __attribute__((vector_size(16)));

// exp(z) * 2^44 for z in [kLowest, 0]: z = n ln 2 + r, a Taylor polynomial for exp(r) with
// |r| <= ln 2 / 2 (relative error 2e-7), and n added to the exponent.
Float4 ScaledExp(Float4 z) {
  constexpr float kLog2e = 1.44269504f;
  constexpr float kLn2High = 0.693145752f;  // few bits: n * kLn2High is exact
  constexpr float kLn2Low = 1.42860677e-6f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr int32_t kBias = 127 + 44 - std::bit_cast<int32_t>(kRound);
  const Float4 shifted = z * kLog2e + kRound;
  const Float4 n = shifted - kRound;
  const Float4 r = (z - n * kLn2High) - n * kLn2Low;
  Float4 p = r * (1.0f / 720) + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * (Float4)(((Int4)shifted + kBias) << 23);
}

}  // namespace

bool AllFinite(absl::Span<const float> logits) {
  constexpr float kMax = std::numeric_limits<float>::max();
  const size_t size = logits.size();
  std::array<int32_t, kLanes> bad{};
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const float* x = logits.data() + i;
    for (int j = 0; j < kLanes; ++j) bad[j] |= !(std::fabs(x[j]) <= kMax);
  }
  for (; i < size; ++i) bad[0] |= !(std::fabs(logits[i]) <= kMax);
  return std::all_of(bad.begin(), bad.end(), [](int32_t b) { return b == 0; });
}

std::optional<Best> FindBest(absl::Span<const float> logits) {
  const size_t size = logits.size();
  Floats best;
  best.fill(-kInfinity);
  std::array<int32_t, kLanes> bad{};
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const float* x = logits.data() + i;
    for (int j = 0; j < kLanes; ++j) {
      bad[j] |= !(x[j] < kInfinity);
      best[j] = best[j] < x[j] ? x[j] : best[j];
    }
  }
  for (; i < size; ++i) {
    bad[0] |= !(logits[i] < kInfinity);
    best[0] = best[0] < logits[i] ? logits[i] : best[0];
  }
  const float max = *std::max_element(best.begin(), best.end());
  if (std::any_of(bad.begin(), bad.end(), [](int32_t b) { return b != 0; })) return std::nullopt;
  if (max == -kInfinity) return std::nullopt;
  const auto first = std::find(logits.begin(), logits.end(), max);
  return Best{max, static_cast<TokenId>(first - logits.begin())};
}

Floats WeightedRow::Scaled(size_t first) const {
  Floats scaled;
  if (first + kLanes <= logits.size()) {
    const float* x = logits.data() + first;
    for (int i = 0; i < kLanes; ++i) scaled[i] = (x[i] - max) / temperature;
    return scaled;
  }
  scaled.fill(-kInfinity);
  for (size_t i = first; i < logits.size(); ++i)
    scaled[i - first] = (logits[i] - max) / temperature;
  return scaled;
}

std::array<uint64_t, kLanes> WeightedRow::Weights(const Floats& scaled) const {
  Floats exact;
  for (int i = 0; i < kLanes; i += 4) {
    Float4 z;
    std::memcpy(&z, scaled.data() + i, sizeof(z));
    z = ScaledExp(z < kLowest ? Float4{kLowest, kLowest, kLowest, kLowest} : z);
    std::memcpy(exact.data() + i, &z, sizeof(z));
  }
  std::array<uint64_t, kLanes> weights;
  for (int i = 0; i < kLanes; ++i) {
    const uint64_t weight = static_cast<uint64_t>(static_cast<int64_t>(exact[i]));
    weights[i] = weight < min_weight ? 0 : weight;
  }
  return weights;
}

uint64_t SumWeights(const WeightedRow& row, size_t first, size_t count) {
  const size_t end = std::min(first + count, row.logits.size());
  uint64_t sum = 0;
  for (size_t i = first; i < end; i += kLanes) {
    for (uint64_t weight : row.Weights(row.Scaled(i))) sum += weight;
  }
  return sum;
}

}  // namespace kvasir::sample
