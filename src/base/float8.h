// FP8 E4M3 (Micikevicius et al., FP8 Formats for Deep Learning) as a storage type: a sign, four
// bits of exponent with a bias of 7, three of mantissa; up to 448, no infinities.
#pragma once

#include <bit>
#include <cstdint>

#include "base/float16.h"

namespace kvasir {

struct Fp8 {
  uint8_t bits;
};

inline constexpr float kLargestFp8 = 448.0f;

inline bool IsNan(Fp8 v) { return (v.bits & 0x7f) == 0x7f; }

// The fields of an FP8, each where an FP16 has it, make the FP8's value divided by 256 (the biases
// are 7 and 15), subnormals included. (The two NaNs become +-480.)
inline Fp16 ToFp16Over256(Fp8 v) {
  return Fp16{static_cast<uint16_t>((v.bits & 0x80u) << 8 | (v.bits & 0x7fu) << 7)};
}

inline float ToFloat(Fp8 v) { return 256.0f * ToFloat(ToFp16Over256(v)); }

// Rounds to nearest even; what is larger than 448 becomes 448, and so does NaN.
inline Fp8 ToFp8(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint32_t a = u & 0x7fffffffu;
  // Below 2^-6 steps are of 2^-9, which are those of floats from 2^14 on.
  const float aligned = std::bit_cast<float>(a) + 0x1p14f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(aligned) - 0x46800000u;
  const uint32_t normal = (a - 0x3c000000u + 0x7ffffu + ((a >> 20) & 1u)) >> 20;
  const uint32_t rounded = a < 0x3c800000u ? subnormal : normal;
  const uint32_t magnitude = rounded < 0x7eu ? rounded : 0x7eu;
  return Fp8{static_cast<uint8_t>((u >> 24 & 0x80u) | magnitude)};
}

}  // namespace kvasir
