// How floats become integers of a few bits: evenly spaced values, of which one is 0.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace kvasir::ops {

struct RoundingGrid {
  float scale = 0.0f;
  int zero = 0;  // the integer that stands for 0
  int most = 0;  // integers are in [0, most]

  int Nearest(float x) const {
    if (scale == 0.0f) return zero;
    const float position = std::nearbyintf(x / scale) + static_cast<float>(zero);
    return static_cast<int>(std::clamp(position, 0.0f, static_cast<float>(most)));
  }
  float Value(int q) const { return scale * static_cast<float>(q - zero); }
};

// The grid of `bits` bits for `count` finite floats, which has the least squared error of those
// that are tried around their range; `costs`, where there are any, weigh the squares. Without a
// zero point, zero is the middle. `as_fp16`: its scale is one of fp16.
RoundingGrid BestGrid(const float* x, const float* costs, int64_t count, int bits, bool has_zero,
                      bool as_fp16);

}  // namespace kvasir::ops
