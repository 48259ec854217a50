#include "ops/quantize_weights.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/float16.h"
#include "base/float8.h"

namespace kvasir::ops {
namespace {

// Scales are tried from this share of the plain one to a little above it.
constexpr float kLowest = 0.80f, kHighest = 1.04f;
constexpr int kTried = 13;

// How a group of floats becomes integers in [0, most].
struct Grid {
  float scale;
  int zero;
  int most;

  int Nearest(float x) const {
    if (scale == 0.0f) return zero;
    const float position = std::nearbyintf(x / scale) + static_cast<float>(zero);
    return static_cast<int>(std::clamp(position, 0.0f, static_cast<float>(most)));
  }
  double Error(const float* x, int64_t count) const {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double off = double{x[i]} - double{scale} * (Nearest(x[i]) - zero);
      sum += off * off;
    }
    return sum;
  }
};

float Kept(float scale, bool as_fp16) { return as_fp16 ? ToFloat(ToFp16(scale)) : scale; }

// Integers on both sides of the middle, which stands for 0.
Grid BestSymmetric(const float* x, int64_t count, int bits, bool as_fp16) {
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[i]));
  const int middle = 1 << (bits - 1);
  const float plain = largest / static_cast<float>(middle - 1);
  Grid best{Kept(plain, as_fp16), middle, 2 * middle - 1};
  double error = best.Error(x, count);
  for (int i = 0; i < kTried && error > 0; ++i) {
    Grid tried = best;
    const float share = kLowest + (kHighest - kLowest) * static_cast<float>(i) / (kTried - 1);
    tried.scale = Kept(plain * share, as_fp16);
    const double off = tried.Error(x, count);
    if (off < error) best = tried, error = off;
  }
  return best;
}

// Integers over the range of the values, widened so that it holds 0, or a share of it.
Grid BestWithZero(const float* x, int64_t count, int bits, bool as_fp16) {
  const auto [lowest, highest] = std::minmax_element(x, x + count);
  const float low = std::min(*lowest, 0.0f), high = std::max(*highest, 0.0f);
  const int most = (1 << bits) - 1;
  Grid best{0.0f, 0, most};
  double error = best.Error(x, count);
  for (int i = 0; i < kTried && error > 0; ++i) {
    const float share = kLowest + (kHighest - kLowest) * static_cast<float>(i) / (kTried - 1);
    const float scale = Kept((high - low) * share / static_cast<float>(most), as_fp16);
    if (scale == 0.0f) continue;
    const int plain = static_cast<int>(std::nearbyintf(-low * share / scale));
    for (int zero = std::max(plain - 1, 0); zero <= std::min(plain + 1, most); ++zero) {
      const Grid tried{scale, zero, most};
      const double off = tried.Error(x, count);
      if (off < error) best = tried, error = off;
    }
  }
  return best;
}

std::vector<float> Finite(const float* x, int64_t count) {
  std::vector<float> out(x, x + count);
  for (float& v : out) v = std::isfinite(v) ? v : 0.0f;
  return out;
}

}  // namespace

void RoundToIntegers(const float* x, int64_t cols, int64_t group, int bits, bool has_zero,
                     IntegerRow& out) {
  KVASIR_CHECK(cols % group == 0, "a row is made of whole groups");
  const std::vector<float> finite = Finite(x, cols);
  const bool as_fp16 = group < cols;
  out.q.clear();
  out.scale.clear();
  out.zero.clear();
  for (const float* at = finite.data(); at != finite.data() + cols; at += group) {
    const Grid grid =
        has_zero ? BestWithZero(at, group, bits, as_fp16) : BestSymmetric(at, group, bits, as_fp16);
    for (int64_t i = 0; i < group; ++i) out.q.push_back(static_cast<uint8_t>(grid.Nearest(at[i])));
    out.scale.push_back(grid.scale);
    out.zero.push_back(static_cast<uint8_t>(grid.zero));
  }
}

float RoundToF8(const float* x, int64_t cols, uint8_t* out) {
  const std::vector<float> finite = Finite(x, cols);
  float largest = 0.0f;
  for (float v : finite) largest = std::max(largest, std::abs(v));
  const float scale = largest / kF8Largest;
  for (int64_t i = 0; i < cols; ++i) {
    out[i] = scale == 0.0f ? 0 : ToF8E4M3(finite[i] / scale).bits;
  }
  return scale;
}

}  // namespace kvasir::ops
