// Part of kernels_impl.h: matrix products.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ops/codebooks.h"
#include "ops/cpu/kernels.h"

namespace kvasir::ops {
namespace {

// ---- Quantised matrix products ----

// What a panel format says to the kernel: bits, where things lie (see packing.cc), and how the
// minimum comes about.
enum class Minimum { kNone, kStored, kConstant, kTwoLevel, kZero4, kZero8 };

template <PanelFormat kFormat>
struct FormatOf;
#define KVASIR_FORMAT(name, bits, groups, subs, group_offset, group_bytes_, minimum, zero, table) \
  template <>                                                                                     \
  struct FormatOf<PanelFormat::name> {                                                            \
    static constexpr PanelFormat kFormat = PanelFormat::name;                                     \
    static constexpr int kBits = bits;                                                            \
    static constexpr int kGroups = groups; /* of a unit; 0: as the panels say */                  \
    static constexpr int kSubs = subs;     /* scales of a group */                                \
    static constexpr int kGroupOffset = group_offset;                                             \
    static constexpr int kGroupBytes = group_bytes_;                                              \
    static constexpr Minimum kMinimum = minimum;                                                  \
    static constexpr float kZero = zero;                                                          \
    static constexpr const int8_t* kTable = table; /* what integers choose from; null: numbers */ \
    static constexpr bool kHasTable = !std::is_null_pointer_v<decltype(table)>;                   \
    static constexpr bool kSigned = bits == 8 || kHasTable;                                       \
    static constexpr bool kFactors = groups == 0; /* of rows, in a header */                      \
  }
KVASIR_FORMAT(kQ4_0, 4, 1, 1, 32, 256, Minimum::kConstant, 8.0f, nullptr);
KVASIR_FORMAT(kQ4_1, 4, 1, 1, 64, 256, Minimum::kStored, 0.0f, nullptr);
KVASIR_FORMAT(kQ5_0, 5, 1, 1, 32, 320, Minimum::kConstant, 16.0f, nullptr);
KVASIR_FORMAT(kQ5_1, 5, 1, 1, 64, 320, Minimum::kStored, 0.0f, nullptr);
KVASIR_FORMAT(kQ8_0, 8, 1, 1, 32, 512, Minimum::kNone, 0.0f, nullptr);
KVASIR_FORMAT(kQ4_K, 4, 8, 1, 320, 256, Minimum::kTwoLevel, 0.0f, nullptr);
KVASIR_FORMAT(kQ5_K, 5, 8, 1, 320, 320, Minimum::kTwoLevel, 0.0f, nullptr);
KVASIR_FORMAT(kQ6_K, 6, 8, 2, 288, 384, Minimum::kConstant, 32.0f, nullptr);
KVASIR_FORMAT(kIq4Nl, 4, 1, 1, 32, 256, Minimum::kNone, 0.0f, kIq4NlValues);
KVASIR_FORMAT(kMxfp4, 4, 1, 1, 16, 256, Minimum::kNone, 0.0f, kMxfp4Values);
KVASIR_FORMAT(kInt4, 4, 0, 1, 32, 256, Minimum::kConstant, 8.0f, nullptr);
KVASIR_FORMAT(kInt4Zero, 4, 0, 1, 40, 256, Minimum::kZero4, 0.0f, nullptr);
KVASIR_FORMAT(kInt8, 8, 0, 1, 32, 512, Minimum::kNone, 0.0f, nullptr);
KVASIR_FORMAT(kInt8Zero, 8, 0, 1, 48, 512, Minimum::kZero8, 0.0f, nullptr);
#undef KVASIR_FORMAT

// Scale and minimum of one group (or half group): w = scale * q + minimum, for 16 rows.
template <class Isa, class F>
inline __attribute__((always_inline)) void LoadScales(const uint8_t* unit, int group, int sub,
                                                      typename Isa::Vf& scale,
                                                      typename Isa::Vf& minimum) {
  if constexpr (F::kFormat == PanelFormat::kMxfp4) {  // the table holds twice the values
    scale = Isa::Mul(Isa::LoadPowersOfTwo(unit), Isa::Set(0.5f));
    return;
  }
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
  if constexpr (F::kMinimum == Minimum::kZero4 || F::kMinimum == Minimum::kZero8) {
    const auto zero =
        F::kMinimum == Minimum::kZero4 ? Isa::LoadU4(unit + 32) : Isa::LoadS8(unit + 32);
    minimum = Isa::Mul(Isa::Mul(scale, zero), Isa::Set(-1.0f));
  }
}

// A single row streams its weights from memory once: asks for those of a few groups ahead, which
// the hardware's own prefetch leaves too late at the ends of pages.
template <class F>
inline __attribute__((always_inline)) void PrefetchWeights(const uint8_t* group) {
  constexpr int kAhead = 2048;
#pragma GCC unroll 9
  for (int line = 0; line < F::kGroupBytes + F::kGroupOffset / (F::kGroups == 0 ? 4 : F::kGroups);
       line += 64) {
    __builtin_prefetch(group + kAhead + line, 0, 2);
  }
}

// Adds group g, the `inner`-th of its unit, to acc[m] for M consecutive rows of activations.
template <class Isa, class F, int M>
inline __attribute__((always_inline)) void AddGroup(const uint8_t* unit, int inner,
                                                    const QuantizedRows& x, int64_t row, int64_t g,
                                                    typename Isa::Vf (&acc)[M]) {
  using Vf = typename Isa::Vf;
  const int64_t groups = x.cols / kGroup;
  const float* scales = x.scale + row * groups;
  const float* sums = F::kSubs == 2 ? x.half_sum + row * groups * 2 : x.sum + row * groups;
  const uint8_t* group = unit + F::kGroupOffset + int64_t{inner} * F::kGroupBytes;
  if constexpr (M == 1) PrefetchWeights<F>(group - F::kGroupOffset);
  const int8_t* q[M];
  int32_t q_sum[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    q[m] = x.q + (row + m) * x.cols + g * kGroup;
    q_sum[m] = F::kSigned ? x.integer_sum[(row + m) * groups + g] : 0;
  }
  typename Isa::Vi dot[M][F::kSubs];
  Isa::template GroupDot<F, M>(group, q, q_sum, dot);
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

// acc[m] = the 16 outputs of a panel for M consecutive rows of activations.
template <class Isa, class F, int M>
void QuantizedTile(const PanelView& weights, const uint8_t* panel, const QuantizedRows& x,
                   int64_t row, typename Isa::Vf (&acc)[M]) {
  const int unit_groups = F::kGroups > 0 ? F::kGroups : static_cast<int>(weights.group / kGroup);
  const int64_t unit_bytes = F::kGroupOffset + int64_t{unit_groups} * F::kGroupBytes;
  const uint8_t* unit = panel + (F::kFactors ? 4 * kPanelRows : 0);
  for (int m = 0; m < M; ++m) acc[m] = Isa::Set(0.0f);
  for (int64_t g = 0; g < x.cols / kGroup; g += unit_groups, unit += unit_bytes) {
    for (int inner = 0; inner < unit_groups; ++inner) {
      AddGroup<Isa, F, M>(unit, inner, x, row, g + inner, acc);
    }
  }
  if constexpr (F::kFactors) {
    const auto factors = Isa::Load(reinterpret_cast<const float*>(panel));
    for (int m = 0; m < M; ++m) acc[m] = Isa::Mul(acc[m], factors);
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
  QuantizedTile<Isa, F, M>(args.weights, args.weights.panel(panel), args.quantized, row, acc);
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

// 8-bit floats: the sum of each 128 columns, then times their scale.
template <class Isa, int P, int M>
void F8Tile(const MatmulArgs& args, int64_t panel, int64_t row) {
  using Vf = typename Isa::Vf;
  const int64_t cols = args.weights.cols, panel_bytes = args.weights.panel_bytes;
  Vf acc[P][M];
  for (int p = 0; p < P; ++p) {
    for (int m = 0; m < M; ++m) acc[p][m] = Isa::Set(0.0f);
  }
  const uint8_t* header = args.weights.panel(panel);
  const uint8_t* weights = header + panel_bytes - cols * kPanelRows;
  const float* x = args.floats + row * cols;
  for (int64_t begin = 0; begin < cols; begin += kF8Block) {
    const int64_t end = begin + kF8Block < cols ? begin + kF8Block : cols;
    Vf sum[P][M];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
      for (int m = 0; m < M; ++m) sum[p][m] = Isa::Set(0.0f);
    }
    for (int64_t k = begin; k < end; ++k) {
      Vf w[P];
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) w[p] = Isa::LoadFp8(weights + p * panel_bytes + k * kPanelRows);
#pragma GCC unroll 6
      for (int m = 0; m < M; ++m) {
        const Vf xs = Isa::Set(x[m * cols + k]);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) sum[p][m] = Isa::Fma(xs, w[p], sum[p][m]);
      }
    }
    for (int p = 0; p < P; ++p) {
      float scale;
      std::memcpy(&scale, header + p * panel_bytes + 4 * (kPanelRows + begin / kF8Block), 4);
      for (int m = 0; m < M; ++m) acc[p][m] = Isa::Fma(sum[p][m], Isa::Set(scale), acc[p][m]);
    }
  }
  for (int p = 0; p < P; ++p) {
    const Vf factors = Isa::Load(reinterpret_cast<const float*>(header + p * panel_bytes));
    for (int m = 0; m < M; ++m) {
      StoreOutputs<Isa>(args, panel + p, row + m, Isa::Mul(acc[p][m], factors));
    }
  }
}

template <class Isa>
void F8Matmul(const MatmulArgs& args) {
  int64_t row = args.row_begin;
  for (; row + 4 <= args.row_end; row += 4) {
    for (int64_t p = args.panel_begin; p < args.panel_end; ++p) F8Tile<Isa, 1, 4>(args, p, row);
  }
  for (; row < args.row_end; ++row) {
    int64_t p = args.panel_begin;
    for (; p + 4 <= args.panel_end; p += 4) F8Tile<Isa, 4, 1>(args, p, row);
    for (; p < args.panel_end; ++p) F8Tile<Isa, 1, 1>(args, p, row);
  }
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
    case PanelFormat::kF8E4M3:
      return F8Matmul<Isa>(args);
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
    case PanelFormat::kIq4Nl:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kIq4Nl>>(args);
    case PanelFormat::kMxfp4:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kMxfp4>>(args);
    case PanelFormat::kInt4:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kInt4>>(args);
    case PanelFormat::kInt4Zero:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kInt4Zero>>(args);
    case PanelFormat::kInt8:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kInt8>>(args);
    case PanelFormat::kInt8Zero:
      return QuantizedMatmul<Isa, FormatOf<PanelFormat::kInt8Zero>>(args);
  }
}

}  // namespace
}  // namespace kvasir::ops
