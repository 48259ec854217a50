#include "ops/rounding_grid.h"

#include "base/float16.h"

namespace kvasir::ops {
namespace {

// Scales are tried from this share of the plain one to a little above it.
constexpr float kLowest = 0.80f, kHighest = 1.04f;
constexpr int kTried = 13;

float Share(int i) { return kLowest + (kHighest - kLowest) * static_cast<float>(i) / (kTried - 1); }

float Kept(float scale, bool as_fp16) { return as_fp16 ? ToFloat(ToFp16(scale)) : scale; }

double Error(const RoundingGrid& grid, const float* x, const float* costs, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double off = double{x[i]} - double{grid.scale} * (grid.Nearest(x[i]) - grid.zero);
    sum += costs == nullptr ? off * off : off * off * double{costs[i]};
  }
  return sum;
}

// Integers on both sides of the middle, which stands for 0.
RoundingGrid BestSymmetric(const float* x, const float* costs, int64_t count, int bits,
                           bool as_fp16) {
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[i]));
  const int middle = 1 << (bits - 1);
  const float plain = largest / static_cast<float>(middle - 1);
  RoundingGrid best{Kept(plain, as_fp16), middle, 2 * middle - 1};
  double error = Error(best, x, costs, count);
  for (int i = 0; i < kTried && error > 0; ++i) {
    RoundingGrid tried = best;
    tried.scale = Kept(plain * Share(i), as_fp16);
    const double off = Error(tried, x, costs, count);
    if (off < error) best = tried, error = off;
  }
  return best;
}

// Integers over the range of the values, widened so that it holds 0, or a share of it.
RoundingGrid BestWithZero(const float* x, const float* costs, int64_t count, int bits,
                          bool as_fp16) {
  const auto [lowest, highest] = std::minmax_element(x, x + count);
  const float low = std::min(*lowest, 0.0f), high = std::max(*highest, 0.0f);
  const int most = (1 << bits) - 1;
  RoundingGrid best{0.0f, 0, most};
  double error = Error(best, x, costs, count);
  for (int i = 0; i < kTried && error > 0; ++i) {
    const float scale = Kept((high - low) * Share(i) / static_cast<float>(most), as_fp16);
    if (scale == 0.0f) continue;
    const int plain = static_cast<int>(std::nearbyintf(-low * Share(i) / scale));
    for (int zero = std::max(plain - 1, 0); zero <= std::min(plain + 1, most); ++zero) {
      const RoundingGrid tried{scale, zero, most};
      const double off = Error(tried, x, costs, count);
      if (off < error) best = tried, error = off;
    }
  }
  return best;
}

}  // namespace

RoundingGrid BestGrid(const float* x, const float* costs, int64_t count, int bits, bool has_zero,
                      bool as_fp16) {
  return has_zero ? BestWithZero(x, costs, count, bits, as_fp16)
                  : BestSymmetric(x, costs, count, bits, as_fp16);
}

}  // namespace kvasir::ops
