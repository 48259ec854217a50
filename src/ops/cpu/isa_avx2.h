// AVX2 with FMA and F16C: 16 lanes as two registers of 8.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace kvasir::ops {

struct Avx2Isa {
  static constexpr const char* kName = "avx2";
  static constexpr bool kRegisters = true;  // a vector lies in registers
  static constexpr bool kBf16Pairs = false;
  static constexpr int kTileRows = 4;
  static constexpr int kFloatPanels = 1, kFloatRows = 6;

  struct Vf {
    __m256 a, b;
  };
  struct Vi {
    __m256i a, b;
  };

#define KVASIR_INLINE static inline __attribute__((always_inline))
  KVASIR_INLINE Vf Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  KVASIR_INLINE Vf Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  KVASIR_INLINE void Store(float* p, const Vf& x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
  }
  KVASIR_INLINE __m128i Load64(const uint8_t* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
  KVASIR_INLINE __m128i Load128(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  KVASIR_INLINE __m256i Load256(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  KVASIR_INLINE Vf LoadF16(const uint8_t* p) {
    return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 16))};
  }
  KVASIR_INLINE __m256 WidenBf16(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
  KVASIR_INLINE Vf LoadBf16(const uint8_t* p) {
    return {WidenBf16(Load128(p)), WidenBf16(Load128(p + 16))};
  }
  KVASIR_INLINE Vf LoadU8(const uint8_t* p) {
    const __m128i x = Load128(p);
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(x, 8)))};
  }
  KVASIR_INLINE Vf LoadS8(const uint8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(Load64(p))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(Load64(p + 8)))};
  }
  // As the FP16s that base/float8.h makes of them.
  KVASIR_INLINE Vf LoadFp8(const uint8_t* p) {
    const __m256i shifted = _mm256_slli_epi16(_mm256_cvtepi8_epi16(Load128(p)), 7);
    const __m256i halves = _mm256_and_si256(shifted, _mm256_set1_epi16(~0x4000));
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  }
  KVASIR_INLINE Vf LoadU4(const uint8_t* p) {
    const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i nibble = _mm_set1_epi8(15);
    const __m128i bytes =
        _mm_unpacklo_epi8(_mm_and_si128(x, nibble), _mm_and_si128(_mm_srli_epi16(x, 4), nibble));
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  KVASIR_INLINE __m256 PowersOfTwo8(__m128i bytes) {
    const __m256i e = _mm256_cvtepu8_epi32(bytes);
    const __m256i least = _mm256_and_si256(_mm256_cmpeq_epi32(e, _mm256_setzero_si256()),
                                           _mm256_set1_epi32(0x00400000));
    return _mm256_castsi256_ps(_mm256_or_si256(_mm256_slli_epi32(e, 23), least));
  }
  KVASIR_INLINE Vf LoadPowersOfTwo(const uint8_t* p) {
    const __m128i x = Load128(p);
    return {PowersOfTwo8(x), PowersOfTwo8(_mm_srli_si128(x, 8))};
  }
  // Round to nearest even; NaN becomes a quiet NaN, as base/float16.h has it.
  KVASIR_INLINE __m256i NarrowBf16(__m256 x) {
    const __m256i u = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_srli_epi32(
        _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, nan);
  }
  KVASIR_INLINE void StoreBf16(uint16_t* p, const Vf& x) {
    const __m256i packed = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(NarrowBf16(x.a), NarrowBf16(x.b)), _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
  }
  // As base/float8.h has it.
  KVASIR_INLINE __m256i NarrowFp8(__m256 x) {
    const __m256i u = _mm256_castps_si256(x);
    const __m256i a = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff));
    const __m256 aligned = _mm256_add_ps(_mm256_castsi256_ps(a), _mm256_set1_ps(0x1p14f));
    const __m256i subnormal =
        _mm256_sub_epi32(_mm256_castps_si256(aligned), _mm256_set1_epi32(0x46800000));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(a, 20), _mm256_set1_epi32(1));
    const __m256i offset = _mm256_set1_epi32(0x7ffff - 0x3c000000);
    const __m256i normal =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(a, offset), odd), 20);
    const __m256i small = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x3c800000), a);
    const __m256i rounded = _mm256_blendv_epi8(normal, subnormal, small);
    const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(u, 24), _mm256_set1_epi32(0x80));
    return _mm256_or_si256(_mm256_min_epu32(rounded, _mm256_set1_epi32(0x7e)), sign);
  }
  KVASIR_INLINE void StoreFp8(uint8_t* p, const Vf& x) {
    const __m256i words = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(NarrowFp8(x.a), NarrowFp8(x.b)), _MM_SHUFFLE(3, 1, 2, 0));
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  }

  KVASIR_INLINE Vf Add(const Vf& x, const Vf& y) {
    return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
  }
  KVASIR_INLINE Vf Sub(const Vf& x, const Vf& y) {
    return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
  }
  KVASIR_INLINE Vf Mul(const Vf& x, const Vf& y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
  }
  KVASIR_INLINE Vf Div(const Vf& x, const Vf& y) {
    return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
  }
  KVASIR_INLINE Vf Fma(const Vf& x, const Vf& y, const Vf& z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  KVASIR_INLINE Vf Max(const Vf& x, const Vf& y) {
    return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
  }
  KVASIR_INLINE Vf Min(const Vf& x, const Vf& y) {
    return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
  }
  KVASIR_INLINE Vf Abs(const Vf& x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
  }
  KVASIR_INLINE Vf KeepIfGe(const Vf& x, const Vf& y, const Vf& z) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ), z.a),
            _mm256_and_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ), z.b)};
  }
  KVASIR_INLINE __m256 Scale8(__m256 x, __m256 n) {
    const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), shift));
  }
  KVASIR_INLINE Vf ScaleByPowerOfTwo(const Vf& x, const Vf& n) {
    return {Scale8(x.a, n.a), Scale8(x.b, n.b)};
  }
  template <int H>
  KVASIR_INLINE __m256 Swapped8(__m256 x) {
    if constexpr (H == 4) return _mm256_permute2f128_ps(x, x, 1);
    return _mm256_permute_ps(x, H == 2 ? 0x4e : 0xb1);
  }
  template <int H>
  KVASIR_INLINE Vf Swapped(const Vf& x) {
    if constexpr (H == 8) return {x.b, x.a};
    return {Swapped8<H>(x.a), Swapped8<H>(x.b)};
  }
  KVASIR_INLINE float ReduceAdd(const Vf& x) {
    const __m256 s8 = _mm256_add_ps(x.a, x.b);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
  }
  KVASIR_INLINE float ReduceMax(const Vf& x) {
    const __m256 s8 = _mm256_max_ps(x.a, x.b);
    const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
  }
  KVASIR_INLINE Vf ToFloats(const Vi& x) {
    return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
  }

  KVASIR_INLINE int32_t RoundToInt8(const Vf& x, int8_t* out) {
    const __m256i a = _mm256_cvtps_epi32(x.a);
    const __m256i b = _mm256_cvtps_epi32(x.b);
    const __m256i words =
        _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
    const __m256i s8 = _mm256_add_epi32(a, b);
    const __m128i s4 = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
    const __m128i s2 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s2, _mm_shuffle_epi32(s2, 0xb1)));
  }

  KVASIR_INLINE __m256i Broadcast4(const int8_t* p) {
    int32_t v;
    std::memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
  }

  // Steps p (low) and p + 4 (high) of a group, for rows 8h..8h+7.
  template <int kBits>
  KVASIR_INLINE void Unpack(const uint8_t* group, int p, int h, __m256i& low, __m256i& high) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i w = Load256(group + p * 64 + h * 32);
    low = _mm256_and_si256(w, nibble);
    high = _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble);
    if constexpr (kBits == 5) {
      const __m256i bits = Load256(group + 256 + h * 32);
      const __m256i fifth = _mm256_set1_epi8(16);
      const __m256i down = _mm256_srli_epi16(bits, p);  // 16-bit shifts: the mask drops strays
      low = _mm256_or_si256(low, _mm256_and_si256(_mm256_slli_epi16(bits, 4 - p), fifth));
      high = _mm256_or_si256(high, _mm256_and_si256(down, fifth));
    }
    if constexpr (kBits == 6) {
      const __m256i upper = _mm256_set1_epi8(0x30);
      const __m256i first = Load256(group + 256 + h * 32);
      const __m256i second = Load256(group + 320 + h * 32);
      low = _mm256_or_si256(low, _mm256_and_si256(Shift6(first, p), upper));
      high = _mm256_or_si256(high, _mm256_and_si256(Shift6(second, p), upper));
    }
  }

  // Brings bits 2p and 2p + 1 of each byte to bits 4 and 5.
  KVASIR_INLINE __m256i Shift6(__m256i bits, int p) {
    return p < 2 ? _mm256_slli_epi16(bits, 4 - 2 * p) : _mm256_srli_epi16(bits, 2 * p - 4);
  }

  // How many (low, high) products of unsigned kBits x int8 add up in 16 bits without overflow.
  static constexpr int Depth(int bits, int subs) {
    return bits == 4 ? 4 : bits == 5 ? 2 : subs == 2 ? 2 : 1;
  }

  template <class F, int M>
  KVASIR_INLINE void GroupDot(const uint8_t* group, const int8_t* const (&x)[M],
                              const int32_t (&)[M], Vi (&out)[M][F::kSubs]) {
    constexpr int kBits = F::kBits, kSubs = F::kSubs;
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (kBits == 8) {
      SignedDot<M>(group, x, out);
      return;
    }
    if constexpr (F::kHasTable) {
      TableDot<F, M>(group, x, out);
      return;
    }
    constexpr int kDepth = Depth(kBits, kSubs);
    __m256i acc[M][kSubs][2];  // pairs of products in 16 bits
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      __m256i low[2], high[2];
      Unpack<kBits>(group, p, 0, low[0], high[0]);
      Unpack<kBits>(group, p, 1, low[1], high[1]);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        const __m256i x_low = Broadcast4(x[m] + 4 * p);
        const __m256i x_high = Broadcast4(x[m] + 16 + 4 * p);
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          const __m256i t = _mm256_maddubs_epi16(low[h], x_low);
          const __m256i u = _mm256_maddubs_epi16(high[h], x_high);
          if constexpr (kSubs == 2) {
            acc[m][0][h] = p % kDepth == 0 ? t : _mm256_add_epi16(acc[m][0][h], t);
            acc[m][1][h] = p % kDepth == 0 ? u : _mm256_add_epi16(acc[m][1][h], u);
          } else {
            const __m256i both = _mm256_add_epi16(t, u);
            acc[m][0][h] = p % kDepth == 0 ? both : _mm256_add_epi16(acc[m][0][h], both);
          }
        }
      }
      if (p % kDepth == kDepth - 1) {
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
          for (int sub = 0; sub < kSubs; ++sub) {
            const __m256i a = _mm256_madd_epi16(acc[m][sub][0], ones);
            const __m256i b = _mm256_madd_epi16(acc[m][sub][1], ones);
            out[m][sub] = p + 1 == kDepth ? Vi{a, b}
                                          : Vi{_mm256_add_epi32(out[m][sub].a, a),
                                               _mm256_add_epi32(out[m][sub].b, b)};
          }
        }
      }
    }
  }

  // Products of 8 rows x 4 columns, each row's added up.
  KVASIR_INLINE __m256i SignedProducts(__m256i w, __m256i magnitude, __m256i x) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w)),
                             _mm256_set1_epi16(1));
  }

  // 4-bit integers that choose from the int8 of a table.
  template <class F, int M>
  KVASIR_INLINE void TableDot(const uint8_t* group, const int8_t* const (&x)[M], Vi (&out)[M][1]) {
    const __m256i table =
        _mm256_broadcastsi128_si256(Load128(reinterpret_cast<const uint8_t*>(F::kTable)));
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        __m256i low, high;
        Unpack<4>(group, p, h, low, high);
        low = _mm256_shuffle_epi8(table, low);
        high = _mm256_shuffle_epi8(table, high);
        const __m256i low_size = _mm256_abs_epi8(low), high_size = _mm256_abs_epi8(high);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          const __m256i both =
              _mm256_add_epi32(SignedProducts(low, low_size, Broadcast4(x[m] + 4 * p)),
                               SignedProducts(high, high_size, Broadcast4(x[m] + 16 + 4 * p)));
          __m256i& sum = h == 0 ? out[m][0].a : out[m][0].b;
          sum = p == 0 ? both : _mm256_add_epi32(sum, both);
        }
      }
    }
  }

  // int8 x int8: |w| as the unsigned factor, the sign moved to x.
  template <int M>
  KVASIR_INLINE void SignedDot(const uint8_t* group, const int8_t* const (&x)[M], Vi (&out)[M][1]) {
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step) {
      const __m256i w0 = Load256(group + step * 64);
      const __m256i w1 = Load256(group + step * 64 + 32);
      const __m256i a0 = _mm256_abs_epi8(w0);
      const __m256i a1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        const __m256i xs = Broadcast4(x[m] + 4 * step);
        const __m256i a = SignedProducts(w0, a0, xs);
        const __m256i b = SignedProducts(w1, a1, xs);
        out[m][0] = step == 0
                        ? Vi{a, b}
                        : Vi{_mm256_add_epi32(out[m][0].a, a), _mm256_add_epi32(out[m][0].b, b)};
      }
    }
  }
#undef KVASIR_INLINE
};

}  // namespace kvasir::ops
