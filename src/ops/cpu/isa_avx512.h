// AVX-512 (F, BW, VL, DQ) with VNNI and BF16: 16 lanes in one register.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace kvasir::ops {

struct Avx512Isa {
  static constexpr const char* kName = "avx512_bf16";
  static constexpr bool kRegisters = true;  // a vector lies in registers
  static constexpr bool kBf16Pairs = true;
  // What fits into 32 registers: rows of a product of integers; rows and vectors, of panels or of
  // keys, of one of floats.
  static constexpr int kTileRows = 8;
  static constexpr int kFloatPanels = 2, kFloatRows = 12;

  using Vf = __m512;
  using Vi = __m512i;

#define KVASIR_INLINE static inline __attribute__((always_inline))
  KVASIR_INLINE Vf Set(float x) { return _mm512_set1_ps(x); }
  KVASIR_INLINE Vf Load(const float* p) { return _mm512_loadu_ps(p); }
  KVASIR_INLINE void Store(float* p, Vf x) { _mm512_storeu_ps(p, x); }
  KVASIR_INLINE __m128i Load128(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  KVASIR_INLINE __m256i Load256(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  KVASIR_INLINE __m512i Load512(const uint8_t* p) { return _mm512_loadu_si512(p); }
  KVASIR_INLINE Vf LoadF16(const uint8_t* p) { return _mm512_cvtph_ps(Load256(p)); }
  KVASIR_INLINE Vf LoadBf16(const uint8_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(Load256(p)), 16));
  }
  KVASIR_INLINE Vf LoadU8(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(Load128(p)));
  }
  KVASIR_INLINE Vf LoadS8(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(Load128(p)));
  }
  KVASIR_INLINE Vf LoadU4(const uint8_t* p) {
    const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i nibble = _mm_set1_epi8(15);
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(
        _mm_unpacklo_epi8(_mm_and_si128(x, nibble), _mm_and_si128(_mm_srli_epi16(x, 4), nibble))));
  }
  KVASIR_INLINE Vf LoadPowersOfTwo(const uint8_t* p) {
    const __m512i e = _mm512_cvtepu8_epi32(Load128(p));
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(
        _mm512_slli_epi32(e, 23), _mm512_testn_epi32_mask(e, e), _mm512_set1_epi32(0x00400000)));
  }
  // As the FP16s that base/float8.h makes of them.
  KVASIR_INLINE Vf LoadFp8(const uint8_t* p) {
    const __m256i shifted = _mm256_slli_epi16(_mm256_cvtepi8_epi16(Load128(p)), 7);
    return _mm512_cvtph_ps(_mm256_and_si256(shifted, _mm256_set1_epi16(~0x4000)));
  }
  // By integers: the conversion instruction would flush subnormals.
  KVASIR_INLINE void StoreBf16(uint16_t* p, Vf x) {
    const __m512i u = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_srli_epi32(
        _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, quiet)));
  }
  // As base/float8.h has it.
  KVASIR_INLINE void StoreFp8(uint8_t* p, Vf x) {
    const __m512i u = _mm512_castps_si512(x);
    const __m512i a = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff));
    const __m512 aligned = _mm512_add_ps(_mm512_castsi512_ps(a), _mm512_set1_ps(0x1p14f));
    const __m512i subnormal =
        _mm512_sub_epi32(_mm512_castps_si512(aligned), _mm512_set1_epi32(0x46800000));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(a, 20), _mm512_set1_epi32(1));
    const __m512i offset = _mm512_set1_epi32(0x7ffff - 0x3c000000);
    const __m512i normal =
        _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(a, offset), odd), 20);
    const __mmask16 small = _mm512_cmplt_epi32_mask(a, _mm512_set1_epi32(0x3c800000));
    const __m512i rounded = _mm512_mask_mov_epi32(normal, small, subnormal);
    const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(u, 24), _mm512_set1_epi32(0x80));
    const __m512i magnitude = _mm512_min_epu32(rounded, _mm512_set1_epi32(0x7e));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm512_cvtepi32_epi8(_mm512_or_si512(magnitude, sign)));
  }

  KVASIR_INLINE Vf Add(Vf x, Vf y) { return _mm512_add_ps(x, y); }
  KVASIR_INLINE Vf Sub(Vf x, Vf y) { return _mm512_sub_ps(x, y); }
  KVASIR_INLINE Vf Mul(Vf x, Vf y) { return _mm512_mul_ps(x, y); }
  KVASIR_INLINE Vf Div(Vf x, Vf y) { return _mm512_div_ps(x, y); }
  KVASIR_INLINE Vf Fma(Vf x, Vf y, Vf z) { return _mm512_fmadd_ps(x, y, z); }
  KVASIR_INLINE Vf Max(Vf x, Vf y) { return _mm512_max_ps(x, y); }
  KVASIR_INLINE Vf Min(Vf x, Vf y) { return _mm512_min_ps(x, y); }
  KVASIR_INLINE Vf Abs(Vf x) { return _mm512_abs_ps(x); }
  KVASIR_INLINE Vf KeepIfGe(Vf x, Vf y, Vf z) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, y, _CMP_GE_OQ), z);
  }
  KVASIR_INLINE Vf ScaleByPowerOfTwo(Vf x, Vf n) {
    const __m512i shift = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), shift));
  }
  template <int H>
  KVASIR_INLINE Vf Swapped(Vf x) {
    if constexpr (H >= 4) return _mm512_shuffle_f32x4(x, x, H == 8 ? 0x4e : 0xb1);
    return _mm512_permute_ps(x, H == 2 ? 0x4e : 0xb1);
  }
  KVASIR_INLINE __m256 Upper(Vf x) { return _mm512_extractf32x8_ps(x, 1); }
  KVASIR_INLINE float ReduceAdd(Vf x) {
    const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(x), Upper(x));
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
  }
  KVASIR_INLINE float ReduceMax(Vf x) { return _mm512_reduce_max_ps(x); }
  KVASIR_INLINE Vf ToFloats(Vi x) { return _mm512_cvtepi32_ps(x); }

  KVASIR_INLINE int32_t RoundToInt8(Vf x, int8_t* out) {
    const __m512i a = _mm512_cvtps_epi32(x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtsepi32_epi8(a));
    return _mm512_reduce_add_epi32(a);
  }

  // acc += w times the four bytes of x in each lane; in one instruction, which intrinsics become
  // two of.
  KVASIR_INLINE void AddDot(__m512i& acc, __m512i w, const int8_t* x) {
    asm("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(acc)
        : "v"(w), "m"(*reinterpret_cast<const int8_t (*)[4]>(x)));
  }

  template <int kBits>
  KVASIR_INLINE void Unpack(const uint8_t* group, int p, __m512i& low, __m512i& high) {
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i w = Load512(group + p * 64);
    low = _mm512_and_si512(w, nibble);
    high = _mm512_and_si512(_mm512_srli_epi16(w, 4), nibble);
    if constexpr (kBits == 5) {
      const __m512i bits = Load512(group + 256);
      const __m512i fifth = _mm512_set1_epi8(16);
      low = _mm512_or_si512(low, _mm512_and_si512(_mm512_slli_epi16(bits, 4 - p), fifth));
      high = _mm512_or_si512(high, _mm512_and_si512(_mm512_srli_epi16(bits, p), fifth));
    }
    if constexpr (kBits == 6) {
      const __m512i upper = _mm512_set1_epi8(0x30);
      low = _mm512_or_si512(low, _mm512_and_si512(Shift6(Load512(group + 256), p), upper));
      high = _mm512_or_si512(high, _mm512_and_si512(Shift6(Load512(group + 320), p), upper));
    }
  }

  KVASIR_INLINE __m512i Shift6(__m512i bits, int p) {
    return p < 2 ? _mm512_slli_epi16(bits, 4 - 2 * p) : _mm512_srli_epi16(bits, 2 * p - 4);
  }

  template <class F, int M>
  KVASIR_INLINE void GroupDot(const uint8_t* group, const int8_t* const (&x)[M],
                              const int32_t (&x_sum)[M], Vi (&out)[M][F::kSubs]) {
    constexpr int kSubs = F::kSubs;
    if constexpr (F::kBits == 8) {
      SignedDot<M>(group, x, x_sum, out);
      return;
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
      for (int sub = 0; sub < kSubs; ++sub) {
        // (See SignedDot.)
        out[m][sub] = F::kSigned ? _mm512_set1_epi32(-128 * x_sum[m]) : _mm512_setzero_si512();
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      __m512i low, high;
      Unpack<F::kBits>(group, p, low, high);
      if constexpr (F::kHasTable) {
        const __m512i table = _mm512_xor_si512(
            _mm512_broadcast_i32x4(Load128(reinterpret_cast<const uint8_t*>(F::kTable))),
            _mm512_set1_epi8(-128));
        low = _mm512_shuffle_epi8(table, low);
        high = _mm512_shuffle_epi8(table, high);
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        AddDot(out[m][0], low, x[m] + 4 * p);
        AddDot(out[m][kSubs - 1], high, x[m] + 16 + 4 * p);
      }
    }
  }

  // int8 x int8: w + 128 as the unsigned factor, 128 times the sum of x taken off again.
  template <int M>
  KVASIR_INLINE void SignedDot(const uint8_t* group, const int8_t* const (&x)[M],
                               const int32_t (&x_sum)[M], Vi (&out)[M][1]) {
    const __m512i flip = _mm512_set1_epi8(-128);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) out[m][0] = _mm512_set1_epi32(-128 * x_sum[m]);
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step) {
      const __m512i w = _mm512_xor_si512(Load512(group + step * 64), flip);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) AddDot(out[m][0], w, x[m] + 4 * step);
    }
  }

  // Two columns of 16 rows times two activations.
  KVASIR_INLINE Vf PairDot(Vf acc, const uint8_t* w, const uint16_t* x) {
    int32_t pair;
    std::memcpy(&pair, x, 4);
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(Load512(w)),
                            reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)));
  }
#undef KVASIR_INLINE
};

}  // namespace kvasir::ops
