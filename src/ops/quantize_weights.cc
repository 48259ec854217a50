#include "ops/quantize_weights.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/float8.h"
#include "ops/rounding_grid.h"

namespace kvasir::ops {
namespace {

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
    const RoundingGrid grid = BestGrid(at, nullptr, group, bits, has_zero, as_fp16);
    for (int64_t i = 0; i < group; ++i) out.q.push_back(static_cast<uint8_t>(grid.Nearest(at[i])));
    out.scale.push_back(grid.scale);
    out.zero.push_back(static_cast<uint8_t>(grid.zero));
  }
}

float RoundToF8(const float* x, int64_t cols, uint8_t* out) {
  const std::vector<float> finite = Finite(x, cols);
  float largest = 0.0f;
  for (float v : finite) largest = std::max(largest, std::abs(v));
  const float scale = largest / kLargestFp8;
  for (int64_t i = 0; i < cols; ++i) {
    out[i] = scale == 0.0f ? 0 : ToFp8(finite[i] / scale).bits;
  }
  return scale;
}

}  // namespace kvasir::ops
