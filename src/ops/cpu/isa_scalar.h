// Portable C++: the reference that the vector families must equal bit by bit.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/float16.h"
#include "base/float8.h"

namespace kvasir::ops {

struct ScalarIsa {
  static constexpr const char* kName = "scalar";
  static constexpr bool kRegisters = false;  // a vector lies in registers
  static constexpr bool kBf16Pairs = false;
  static constexpr int kTileRows = 4;
  static constexpr int kFloatPanels = 1, kFloatRows = 6;

  struct Vf {
    float v[16];
  };
  struct Vi {
    int32_t v[16];
  };

  template <typename F>
  static Vf Map(F f) {
    Vf out;
    for (int i = 0; i < 16; ++i) out.v[i] = f(i);
    return out;
  }

  static Vf Set(float x) {
    return Map([&](int) { return x; });
  }
  static Vf Load(const float* p) {
    return Map([&](int i) { return p[i]; });
  }
  static void Store(float* p, const Vf& a) { std::memcpy(p, a.v, sizeof(a.v)); }
  static Vf LoadF16(const uint8_t* p) {
    return Map([&](int i) { return ToFloat(Fp16{At(p, i)}); });
  }
  static Vf LoadBf16(const uint8_t* p) {
    return Map([&](int i) { return ToFloat(Bf16{At(p, i)}); });
  }
  static Vf LoadU8(const uint8_t* p) {
    return Map([&](int i) { return float(p[i]); });
  }
  static Vf LoadS8(const uint8_t* p) {
    return Map([&](int i) { return float(static_cast<int8_t>(p[i])); });
  }
  // 4-bit integers, the even lane in the low half of a byte.
  static Vf LoadU4(const uint8_t* p) {
    return Map([&](int i) { return float(p[i / 2] >> (i % 2 * 4) & 15); });
  }
  // 2^(byte - 127), of 255 infinity.
  static Vf LoadPowersOfTwo(const uint8_t* p) {
    return Map([&](int i) {
      return std::bit_cast<float>(p[i] == 0 ? 0x00400000u : uint32_t{p[i]} << 23);
    });
  }
  // FP8 values divided by 256.
  static Vf LoadFp8(const uint8_t* p) {
    return Map([&](int i) { return ToFloat(ToFp16Over256(Fp8{p[i]})); });
  }
  static void StoreBf16(uint16_t* p, const Vf& a) {
    for (int i = 0; i < 16; ++i) p[i] = ToBf16(a.v[i]).bits;
  }
  static void StoreFp8(uint8_t* p, const Vf& a) {
    for (int i = 0; i < 16; ++i) p[i] = ToFp8(a.v[i]).bits;
  }

  static Vf Add(const Vf& a, const Vf& b) {
    return Map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static Vf Sub(const Vf& a, const Vf& b) {
    return Map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static Vf Mul(const Vf& a, const Vf& b) {
    return Map([&](int i) { return a.v[i] * b.v[i]; });
  }
  static Vf Div(const Vf& a, const Vf& b) {
    return Map([&](int i) { return a.v[i] / b.v[i]; });
  }
  static Vf Fma(const Vf& a, const Vf& b, const Vf& c) {
    return Map([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  // As the vector instructions: the second operand when the comparison fails.
  static Vf Max(const Vf& a, const Vf& b) {
    return Map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static Vf Min(const Vf& a, const Vf& b) {
    return Map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static Vf Abs(const Vf& a) {
    return Map([&](int i) { return std::fabs(a.v[i]); });
  }
  // a where x >= y, else 0.
  static Vf KeepIfGe(const Vf& x, const Vf& y, const Vf& a) {
    return Map([&](int i) { return x.v[i] >= y.v[i] ? a.v[i] : 0.0f; });
  }
  // a * 2^n for integral n that keeps a normal.
  static Vf ScaleByPowerOfTwo(const Vf& a, const Vf& n) {
    return Map([&](int i) {
      return std::bit_cast<float>(std::bit_cast<uint32_t>(a.v[i]) +
                                  (static_cast<uint32_t>(static_cast<int32_t>(n.v[i])) << 23));
    });
  }
  // Lanes i and i ^ H change places.
  template <int H>
  static Vf Swapped(const Vf& a) {
    return Map([&](int i) { return a.v[i ^ H]; });
  }
  static float ReduceAdd(const Vf& a) {
    float s[16];
    std::memcpy(s, a.v, sizeof(s));
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) s[i] += s[i + width];
    }
    return s[0];
  }
  static float ReduceMax(const Vf& a) {
    float m = a.v[0];
    for (int i = 1; i < 16; ++i) m = a.v[i] > m ? a.v[i] : m;
    return m;
  }
  static Vf ToFloats(const Vi& a) {
    return Map([&](int i) { return float(a.v[i]); });
  }

  // Rounds to nearest even, 16 values, and returns their sum.
  static int32_t RoundToInt8(const Vf& a, int8_t* out) {
    int32_t sum = 0;
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<int8_t>(std::nearbyint(a.v[i]));
      sum += out[i];
    }
    return sum;
  }

  // The integer dot products of one group of 32 columns: 16 weight rows x M activation rows.
  // F (FormatOf in matmul_impl.h) with kSubs of 2 gives those of each half of the group.
  template <class F, int M>
  static void GroupDot(const uint8_t* group, const int8_t* const (&x)[M], const int32_t (&)[M],
                       Vi (&out)[M][F::kSubs]) {
    constexpr int kSubs = F::kSubs;
    for (int m = 0; m < M; ++m) {
      for (int sub = 0; sub < kSubs; ++sub) {
        for (int row = 0; row < 16; ++row) {
          int32_t dot = 0;
          for (int c = 32 / kSubs * sub; c < 32 / kSubs * (sub + 1); ++c) {
            int32_t q = Weight<F::kBits>(group, row, c);
            if constexpr (F::kHasTable) q = F::kTable[q];
            dot += q * x[m][c];
          }
          out[m][sub].v[row] = dot;
        }
      }
    }
  }

 private:
  static uint16_t At(const uint8_t* p, int i) {
    uint16_t v;
    std::memcpy(&v, p + 2 * i, 2);
    return v;
  }

  template <int kBits>
  static int32_t Weight(const uint8_t* group, int row, int column) {
    const int step = column / 4;
    const int lane = row * 4 + column % 4;
    if constexpr (kBits == 8) return static_cast<int8_t>(group[step * 64 + lane]);
    int32_t q = (group[step % 4 * 64 + lane] >> (step < 4 ? 0 : 4)) & 15;
    if constexpr (kBits == 5) q |= ((group[256 + lane] >> step) & 1) << 4;
    if constexpr (kBits == 6) {
      q |= ((group[256 + step / 4 * 64 + lane] >> (2 * (step % 4))) & 3) << 4;
    }
    return q;
  }
};

}  // namespace kvasir::ops
