// The two 16-bit floating point formats as storage types, with exact widening and
// round-to-nearest-even narrowing.
#pragma once

#include <bit>
#include <cstdint>

namespace kvasir {

// bfloat16: the upper half of an IEEE float32.
struct Bf16 {
  uint16_t bits;
};

// IEEE binary16.
struct Fp16 {
  uint16_t bits;
};

inline float ToFloat(Bf16 v) { return std::bit_cast<float>(uint32_t{v.bits} << 16); }

// NaN keeps its sign and becomes quiet.
inline Bf16 ToBf16(float f) {
  uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return Bf16{static_cast<uint16_t>((u >> 16) | 0x40u)};
  return Bf16{static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

inline float ToFloat(Fp16 v) {
  const uint32_t sign = uint32_t{v.bits & 0x8000u} << 16;
  const uint32_t exponent = (v.bits >> 10) & 31u;
  const uint32_t mantissa = v.bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

inline Fp16 ToFp16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return Fp16{static_cast<uint16_t>(sign | 0x7e00u)};
  if (a >= 0x477ff000u) return Fp16{static_cast<uint16_t>(sign | 0x7c00u)};
  if (a < 0x38800000u) {  // subnormal: adding 0.5 aligns the mantissa and rounds to nearest even
    const float shifted = std::bit_cast<float>(a) + 0.5f;
    return Fp16{static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = a - 0x38000000u + 0xfffu + ((a >> 13) & 1u);
  return Fp16{static_cast<uint16_t>(sign | (rounded >> 13))};
}

}  // namespace kvasir
