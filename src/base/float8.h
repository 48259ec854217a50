// The 8-bit float E4M3 as storage type (Micikevicius et al., FP8 Formats for Deep Learning): a
// sign, 4 bits of exponent of bias 7, 3 of mantissa; no infinities, one NaN of each sign, up to
// 448.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/float16.h"

namespace kvasir {

struct F8E4M3 {
  uint8_t bits;
};

inline constexpr float kF8Largest = 448.0f;

inline bool IsNan(F8E4M3 v) { return (v.bits & 0x7f) == 0x7f; }

// The fp16 of a 256th of the value, which is exact: the mantissa fits, and the exponents' biases
// differ by 8. A NaN becomes 480 / 256.
inline Fp16 To256thFp16(F8E4M3 v) {
  return Fp16{static_cast<uint16_t>((v.bits & 0x80) << 8 | (v.bits & 0x7f) << 7)};
}

// Of a NaN the NaN.
inline float ToFloat(F8E4M3 v) { return IsNan(v) ? NAN : ToFloat(To256thFp16(v)) * 256.0f; }

// Rounds to nearest even; what is larger than any becomes the largest. `f` is no NaN.
inline F8E4M3 ToF8E4M3(float f) {
  const uint8_t sign = std::signbit(f) ? 0x80 : 0;
  const float a = std::fabs(f);
  if (a >= kF8Largest) return F8E4M3{static_cast<uint8_t>(sign | 0x7e)};
  // Steps of the value's own binade; below 2^-6 those of subnormals.
  const int exponent = a < 0x1p-6f ? -6 : std::ilogb(a);
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(a, 3 - exponent)));
  // 8 steps are the mantissa's implied one; 16 carry into the exponent.
  return F8E4M3{static_cast<uint8_t>(sign | ((exponent + 6) * 8 + steps))};
}

}  // namespace kvasir
