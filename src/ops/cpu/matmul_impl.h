// Part of kernels_impl.h: matrix products.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/cpu/kernels.h"

namespace kvasir::ops {
namespace {

// ---- Quantised matrix products ----

// What a panel format says to the kernel: bits, where things lie (see packing.h), and how the
// minimum comes about.
enum class Minimum { kNone, kStored, kConstant, kTwoLevel };

template <PanelFormat kFormat>
struct FormatOf;
#define KVASIR_FORMAT(name, bits, groups, subs, group_offset, group_bytes_, unit_bytes_, minimum, \
                      zero)                                                                       \
  template <>                                                                                     \
  struct FormatOf<PanelFormat::name> {                                                            \
    static constexpr int kBits = bits;                                                            \
    static constexpr int kGroups = groups; /* of a unit */                                        \
    static constexpr int kSubs = subs;     /* scales of a group */                                \
    static constexpr int kGroupOffset = group_offset;                                             \
    static constexpr int kGroupBytes = group_bytes_;                                              \
    static constexpr int kUnitBytes = unit_bytes_;                                                \
    static constexpr Minimum kMinimum = minimum;                                                  \
    static constexpr float kZero = zero;                                                          \
  }
KVASIR_FORMAT(kQ4_0, 4, 1, 1, 32, 256, 288, Minimum::kConstant, 8.0f);
KVASIR_FORMAT(kQ4_1, 4, 1, 1, 64, 256, 320, Minimum::kStored, 0.0f);
KVASIR_FORMAT(kQ5_0, 5, 1, 1, 32, 320, 352, Minimum::kConstant, 16.0f);
KVASIR_FORMAT(kQ5_1, 5, 1, 1, 64, 320, 384, Minimum::kStored, 0.0f);
KVASIR_FORMAT(kQ8_0, 8, 1, 1, 32, 512, 544, Minimum::kNone, 0.0f);
KVASIR_FORMAT(kQ4_K, 4, 8, 1, 320, 256, 2368, Minimum::kTwoLevel, 0.0f);
KVASIR_FORMAT(kQ5_K, 5, 8, 1, 320, 320, 2880, Minimum::kTwoLevel, 0.0f);
KVASIR_FORMAT(kQ6_K, 6, 8, 2, 288, 384, 3360, Minimum::kConstant, 32.0f);
#undef KVASIR_FORMAT

// Scale and minimum of one group (or half group): w = scale * q + minimum, for 16 rows.
template <class Isa, class F>
inline __attribute__((always_inline)) void LoadScales(const uint8_t* unit, int group, int sub,
                                                      typename Isa::Vf& scale,
                                                      typename Isa::Vf& minimum) {
  scale = Isa::LoadF16(unit);
  if constexpr (F::kMinimum == Minimum::kStored) minimum = Isa::LoadF16(unit + 32);
  if constexpr (F::kMinimum == Minimum::kTwoLevel) {
    const auto factor = Isa::LoadF16(unit + 32);
    scale = Isa::Mul(scale, Isa::LoadU8(unit + 64 + group * 16));
    minimum = Isa::Mul(Isa::Mul(factor, Isa::LoadU8(unit + 192 + group * 16)), Isa::Set(-1.0f));
  }
  if constexpr (F::kSubs == 2) {
    scale = Isa::Mul(scale, Isa::LoadS8(unit + 32 + (group * 2 + sub) * 16));
  }
  if constexpr (F::kMinimum == Minimum::kConstant) {
    minimum = Isa::Mul(scale, Isa::Set(-F::kZero));
  }
}

// A single row streams its weights from memory once: asks for those of a few groups ahead, which
// the hardware's own prefetch leaves too late at the ends of pages.
template <class F>
inline __attribute__((always_inline)) void PrefetchWeights(const uint8_t* group) {
  constexpr int kAhead = 2048;
#pragma GCC unroll 9
  for (int line = 0; line < F::kUnitBytes / F::kGroups; line += 64) {
    __builtin_prefetch(group + kAhead + line, 0, 2);
  }
}

// acc[m] = the 16 outputs of a panel for M consecutive rows of activations.
template <class Isa, class F, int M>
void QuantizedTile(const uint8_t* panel, const QuantizedRows& x, int64_t row,
                   typename Isa::Vf (&acc)[M]) {
  using Vf = typename Isa::Vf;
  using Vi = typename Isa::Vi;
  const int64_t groups = x.cols / kGroup;
  for (int m = 0; m < M; ++m) acc[m] = Isa::Set(0.0f);
  const float* scales = x.scale + row * groups;
  const float* sums = F::kSubs == 2 ? x.half_sum + row * groups * 2 : x.sum + row * groups;
  for (int64_t g = 0; g < groups; ++g) {
    const int inner = static_cast<int>(g % F::kGroups);
    const uint8_t* unit = panel + g / F::kGroups * F::kUnitBytes;
    if constexpr (M == 1) PrefetchWeights<F>(unit + inner * F::kGroupBytes);
    const int8_t* q[M];
    int32_t q_sum[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      q[m] = x.q + (row + m) * x.cols + g * kGroup;
      q_sum[m] = F::kBits == 8 ? x.integer_sum[(row + m) * groups + g] : 0;
    }
    Vi dot[M][F::kSubs];
    Isa::template GroupDot<F::kBits, F::kSubs, M>(unit + F::kGroupOffset + inner * F::kGroupBytes,
                                                  q, q_sum, dot);
#pragma GCC unroll 2
    for (int sub = 0; sub < F::kSubs; ++sub) {
      Vf scale, minimum;
      LoadScales<Isa, F>(unit, inner, sub, scale, minimum);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const Vf s = Isa::Mul(scale, Isa::Set(scales[m * groups + g]));
        acc[m] = Isa::Fma(Isa::ToFloats(dot[m][sub]), s, acc[m]);
        if constexpr (F::kMinimum != Minimum::kNone) {
          const float sum = sums[(m * groups + g) * F::kSubs + sub];
          acc[m] = Isa::Fma(minimum, Isa::Set(sum), acc[m]);
        }
      }
    }
  }
}

// Bias, residual and the store of one panel's 16 outputs of one row.
template <class Isa>
inline void StoreOutputs(const MatmulArgs& args, int64_t panel, int64_t row, typename Isa::Vf acc) {
  const int64_t column = panel * kPanelRows;
  float* out = args.out + row * args.out_stride + column;
  const int64_t left = args.weights.rows - column;
  if (left >= kPanelRows) {
    if (args.bias != nullptr) acc = Isa::Add(acc, Isa::Load(args.bias + column));
    if (args.accumulate) acc = Isa::Add(Isa::Load(out), acc);
    Isa::Store(out, acc);
    return;
  }
  alignas(64) float lanes[16];
  Isa::Store(lanes, acc);
  for (int64_t i = 0; i < left; ++i) {
    float value = lanes[i];
    if (args.bias != nullptr) value += args.bias[column + i];
    out[i] = args.accumulate ? out[i] + value : value;
  }
}

template <class Isa, class F, int M>
void QuantizedRowsOfPanel(const MatmulArgs& args, int64_t panel, int64_t row) {
  typename Isa::Vf acc[M];
  QuantizedTile<Isa, F, M>(args.weights.panel(panel), args.quantized, row, acc);
  for (int m = 0; m < M; ++m) StoreOutputs<Isa>(args, panel, row + m, acc[m]);
}

// Tiles of M rows, then of half as many.
template <class Isa, class F, int M>
void QuantizedRowsFrom(const MatmulArgs& args, int64_t panel, int64_t row) {
  for (; row + M <= args.row_end; row += M) QuantizedRowsOfPanel<Isa, F, M>(args, panel, row);
  if constexpr (M > 1) {
    if (row < args.row_end) QuantizedRowsFrom<Isa, F, M / 2>(args, panel, row);
  }
}

template <class Isa, class F>
void QuantizedMatmul(const MatmulArgs& args) {
  for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
    QuantizedRowsFrom<Isa, F, Isa::kTileRows>(args, panel, args.row_begin);
  }
}

// ---- Float matrix products ----

template <class Isa, PanelFormat kFormat>
inline __attribute__((always_inline)) typename Isa::Vf LoadWeights(const uint8_t* panel,
                                                                   int64_t k) {
  if constexpr (kFormat == PanelFormat::kF32) {
    return Isa::Load(reinterpret_cast<const float*>(panel) + k * kPanelRows);
  } else if constexpr (kFormat == PanelFormat::kF16) {
    return Isa::LoadF16(panel + k * kPanelRows * 2);
  } else {
    return Isa::LoadBf16(panel + k * kPanelRows * 2);
  }
}

// P panels x M rows at once: enough independent sums to hide the latency of the multiply-add.
template <class Isa, PanelFormat kFormat, int P, int M>
void FloatTile(const MatmulArgs& args, int64_t panel, int64_t row) {
  using Vf = typename Isa::Vf;
  const int64_t cols = args.weights.cols;
  Vf acc[P][M];
  for (int p = 0; p < P; ++p) {
    for (int m = 0; m < M; ++m) acc[p][m] = Isa::Set(0.0f);
  }
  const uint8_t* weights = args.weights.panel(panel);
  const int64_t panel_bytes = args.weights.panel_bytes;
  const float* x = args.floats + row * cols;
  for (int64_t k = 0; k < cols; ++k) {
    Vf w[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) w[p] = LoadWeights<Isa, kFormat>(weights + p * panel_bytes, k);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const Vf xs = Isa::Set(x[m * cols + k]);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) acc[p][m] = Isa::Fma(xs, w[p], acc[p][m]);
    }
  }
  for (int p = 0; p < P; ++p) {
    for (int m = 0; m < M; ++m) StoreOutputs<Isa>(args, panel + p, row + m, acc[p][m]);
  }
}

// Tiles of M rows as far as they go. Returns the first row that is left.
template <class Isa, PanelFormat kFormat, int P, int M>
int64_t FloatRows(const MatmulArgs& args, int64_t row) {
  for (; row + M <= args.row_end; row += M) {
    int64_t p = args.panel_begin;
    for (; p + P <= args.panel_end; p += P) FloatTile<Isa, kFormat, P, M>(args, p, row);
    if constexpr (P > 1) {
      for (; p < args.panel_end; ++p) FloatTile<Isa, kFormat, 1, M>(args, p, row);
    }
  }
  return row;
}

template <class Isa, PanelFormat kFormat>
void FloatMatmul(const MatmulArgs& args) {
  int64_t row = args.row_begin;
  row = FloatRows<Isa, kFormat, Isa::kFloatPanels, Isa::kFloatRows>(args, row);
  row = FloatRows<Isa, kFormat, 1, 6>(args, row);
  row = FloatRows<Isa, kFormat, 1, 2>(args, row);
  FloatRows<Isa, kFormat, 4, 1>(args, row);
}

template <class Isa, int P, int M>
void PairTile(const MatmulArgs& args, int64_t panel, int64_t row) {
  using Vf = typename Isa::Vf;
  const int64_t cols = args.weights.cols;
  Vf acc[P][M];
  for (int p = 0; p < P; ++p) {
    for (int m = 0; m < M; ++m) acc[p][m] = Isa::Set(0.0f);
  }
  const uint8_t* weights = args.weights.panel(panel);
  const int64_t panel_bytes = args.weights.panel_bytes;
  const uint16_t* x = args.bf16 + row * cols;
  for (int64_t k = 0; k < cols; k += 2) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const uint8_t* w = weights + p * panel_bytes + k * kPanelRows * 2;
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) acc[p][m] = Isa::PairDot(acc[p][m], w, x + m * cols + k);
    }
  }
  for (int p = 0; p < P; ++p) {
    for (int m = 0; m < M; ++m) StoreOutputs<Isa>(args, panel + p, row + m, acc[p][m]);
  }
}

template <class Isa>
void PairMatmul(const MatmulArgs& args) {
  int64_t row = args.row_begin;
  for (; row + 8 <= args.row_end; row += 8) {
    int64_t p = args.panel_begin;
    for (; p + 2 <= args.panel_end; p += 2) PairTile<Isa, 2, 8>(args, p, row);
    for (; p < args.panel_end; ++p) PairTile<Isa, 1, 8>(args, p, row);
  }
  for (; row < args.row_end; ++row) {
    int64_t p = args.panel_begin;
    for (; p + 4 <= args.panel_end; p += 4) PairTile<Isa, 4, 1>(args, p, row);
    for (; p < args.panel_end; ++p) PairTile<Isa, 1, 1>(args, p, row);
  }
}

template <class Isa>
void Matmul(const MatmulArgs& args) {
  switch (args.weights.format) {
    case PanelFormat::kF32:
      return FloatMatmul<Isa, PanelFormat::kF32>(args);
    case PanelFormat::kF16:
      return FloatMatmul<Isa, PanelFormat::kF16>(args);
    case PanelFormat::kBf16:
      return FloatMatmul<Isa, PanelFormat::kBf16>(args);
    case PanelFormat::kBf16Pairs:
      if constexpr (Isa::kBf16Pairs) PairMatmul<Isa>(args);
      return;
    case PanelFormat::kBf16Rows:
      return;  // no CPU's
    case PanelFormat::kQ4_0:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kQ4_0>>(args);
    case PanelFormat::kQ4_1:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kQ4_1>>(args);
    case PanelFormat::kQ5_0:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kQ5_0>>(args);
    case PanelFormat::kQ5_1:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kQ5_1>>(args);
    case PanelFormat::kQ8_0:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kQ8_0>>(args);
    case PanelFormat::kQ4_K:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kQ4_K>>(args);
    case PanelFormat::kQ5_K:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kQ5_K>>(args);
    case PanelFormat::kQ6_K:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kQ6_K>>(args);
  }
}

}  // namespace
}  // namespace kvasir::ops
