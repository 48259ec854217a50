// The kernels, written once over the 16-lane vocabulary of an instruction-set family (isa_*.h).
// Included by one translation unit per family, inside an anonymous namespace, after the family.
//
// Reduction order, which no family may change: every output of a matrix product is one lane, added
// up over k in order; sums over a row keep 16 partial sums, lane = index % 16, and fold them by
// halves; KV positions are added in order within a tile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/cpu/kernels.h"

namespace kvasir::ops {
namespace {

// exp(x) by Cody and Waite's reduction and a degree-6 polynomial (the coefficients of Cephes'
// expf); exactly 0 below -87, saturating above 88. Relative error below 3e-7.
template <class Isa>
typename Isa::Vf Exp(const typename Isa::Vf& x) {
  using Vf = typename Isa::Vf;
  const Vf low = Isa::Set(-87.0f);
  const Vf clamped = Isa::Min(Isa::Max(x, low), Isa::Set(88.0f));
  const Vf magic = Isa::Set(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vf n = Isa::Sub(Isa::Fma(clamped, Isa::Set(1.44269504088896341f), magic), magic);
  Vf r = Isa::Fma(n, Isa::Set(-0.693359375f), clamped);
  r = Isa::Fma(n, Isa::Set(2.12194440e-4f), r);
  Vf p = Isa::Set(1.9875691500e-4f);
  p = Isa::Fma(p, r, Isa::Set(1.3981999507e-3f));
  p = Isa::Fma(p, r, Isa::Set(8.3334519073e-3f));
  p = Isa::Fma(p, r, Isa::Set(4.1665795894e-2f));
  p = Isa::Fma(p, r, Isa::Set(1.6666665459e-1f));
  p = Isa::Fma(p, r, Isa::Set(5.0000001201e-1f));
  p = Isa::Add(Isa::Fma(p, Isa::Mul(r, r), r), Isa::Set(1.0f));
  return Isa::KeepIfGe(x, low, Isa::ScaleByPowerOfTwo(p, n));
}

template <class Isa>
float ExpScalar(float x) {
  alignas(64) float lanes[16];
  Isa::Store(lanes, Exp<Isa>(Isa::Set(x)));
  return lanes[0];
}

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
#pragma GCC unroll 4
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
#pragma GCC unroll 4
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

template <class Isa, class F>
void QuantizedMatmul(const MatmulArgs& args) {
  for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
    int64_t row = args.row_begin;
    for (; row + 4 <= args.row_end; row += 4) QuantizedRowsOfPanel<Isa, F, 4>(args, panel, row);
    switch (args.row_end - row) {
      case 3:
        QuantizedRowsOfPanel<Isa, F, 3>(args, panel, row);
        break;
      case 2:
        QuantizedRowsOfPanel<Isa, F, 2>(args, panel, row);
        break;
      case 1:
        QuantizedRowsOfPanel<Isa, F, 1>(args, panel, row);
        break;
      default:
        break;
    }
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
#pragma GCC unroll 6
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

template <class Isa, PanelFormat kFormat>
void FloatMatmul(const MatmulArgs& args) {
  int64_t row = args.row_begin;
  for (; row + 6 <= args.row_end; row += 6) {
    for (int64_t p = args.panel_begin; p < args.panel_end; ++p) {
      FloatTile<Isa, kFormat, 1, 6>(args, p, row);
    }
  }
  for (; row + 2 <= args.row_end; row += 2) {
    for (int64_t p = args.panel_begin; p < args.panel_end; ++p) {
      FloatTile<Isa, kFormat, 1, 2>(args, p, row);
    }
  }
  for (; row < args.row_end; ++row) {
    int64_t p = args.panel_begin;
    for (; p + 4 <= args.panel_end; p += 4) FloatTile<Isa, kFormat, 4, 1>(args, p, row);
    for (; p < args.panel_end; ++p) FloatTile<Isa, kFormat, 1, 1>(args, p, row);
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

// ---- Row-wise kernels; cols is a multiple of 32 ----

template <class Isa>
void Quantize(const float* x, int64_t row, const QuantizedRows& out) {
  const int64_t groups = out.cols / kGroup;
  int8_t* q = out.q + row * out.cols;
  for (int64_t g = 0; g < groups; ++g, x += kGroup, q += kGroup) {
    const auto a = Isa::Load(x);
    const auto b = Isa::Load(x + 16);
    const float largest = Isa::ReduceMax(Isa::Max(Isa::Abs(a), Isa::Abs(b)));
    const float scale = largest / 127.0f;
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    // A subnormal maximum has an infinite inverse: such a group is zero.
    const auto factor = Isa::Set(inverse < 3e38f ? inverse : 0.0f);
    const int32_t low = Isa::RoundToInt8(Isa::Mul(a, factor), q);
    const int32_t high = Isa::RoundToInt8(Isa::Mul(b, factor), q + 16);
    const int64_t at = row * groups + g;
    out.scale[at] = scale;
    out.sum[at] = scale * static_cast<float>(low + high);
    out.half_sum[2 * at] = scale * static_cast<float>(low);
    out.half_sum[2 * at + 1] = scale * static_cast<float>(high);
    out.integer_sum[at] = low + high;
  }
}

template <class Isa>
void RoundBf16(const float* x, int64_t cols, uint16_t* out) {
  for (int64_t i = 0; i < cols; i += 16) Isa::StoreBf16(out + i, Isa::Load(x + i));
}

template <class Isa>
void RmsNorm(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  auto squares = Isa::Set(0.0f);
  for (int64_t i = 0; i < cols; i += 16) {
    const auto v = Isa::Load(x + i);
    squares = Isa::Fma(v, v, squares);
  }
  const float mean = Isa::ReduceAdd(squares) / static_cast<float>(cols);
  const auto scale = Isa::Set(1.0f / __builtin_sqrtf(mean + eps));
  for (int64_t i = 0; i < cols; i += 16) {
    Isa::Store(out + i, Isa::Mul(Isa::Mul(Isa::Load(x + i), scale), Isa::Load(weight + i)));
  }
}

template <class Isa>
void SwiGlu(const float* gate, const float* up, int64_t cols, float* out) {
  const auto one = Isa::Set(1.0f);
  const auto minus_one = Isa::Set(-1.0f);
  for (int64_t i = 0; i < cols; i += 16) {
    const auto g = Isa::Load(gate + i);
    const auto denominator = Isa::Add(one, Exp<Isa>(Isa::Mul(g, minus_one)));
    Isa::Store(out + i, Isa::Mul(Isa::Div(g, denominator), Isa::Load(up + i)));
  }
}

// ---- Attention ----

constexpr int kAttendRows = 6;  // query rows that share a pass over a tile in registers
constexpr float kMinusInfinity = -__builtin_inff();

// K of a tile as [4 units][head_dim][16] floats, V as [64][head_dim]; positions from `valid` on are
// zero, because their memory may hold another sequence's leavings.
template <class Isa>
void LoadTile(const AttendArgs& args, int32_t tile, int32_t valid, float* k_tile, float* v_tile) {
  const int32_t dim = args.head_dim;
  const int64_t element = args.kv_f32 ? 4 : 2;
  const auto load = [&](const uint8_t* p) {
    return args.kv_f32 ? Isa::Load(reinterpret_cast<const float*>(p)) : Isa::LoadBf16(p);
  };
  for (int32_t unit = 0; unit < kKvTile / kKvUnit; ++unit) {
    const int32_t index = tile / kKvUnit + unit;
    const int32_t filled = valid - unit * kKvUnit;
    float* k_out = k_tile + unit * dim * kKvUnit;
    float* v_out = v_tile + unit * dim * kKvUnit;
    if (filled <= 0) {
      std::memset(k_out, 0, sizeof(float) * dim * kKvUnit);
      std::memset(v_out, 0, sizeof(float) * dim * kKvUnit);
      continue;
    }
    for (int32_t i = 0; i < dim * kKvUnit; i += 16) {
      Isa::Store(k_out + i, load(args.k[index] + i * element));
      Isa::Store(v_out + i, load(args.v[index] + i * element));
    }
    if (filled >= kKvUnit) continue;
    for (int32_t d = 0; d < dim; ++d) {
      for (int32_t t = filled; t < kKvUnit; ++t) k_out[d * kKvUnit + t] = 0.0f;
    }
    std::memset(v_out + filled * dim, 0, sizeof(float) * dim * (kKvUnit - filled));
  }
}

// scores[r][64] = q[r] . k, added up over the head dimension in order.
template <class Isa, int R>
void Scores(const AttendArgs& args, int32_t row, const float* k_tile, float* scores) {
  const int32_t dim = args.head_dim;
  for (int32_t unit = 0; unit < kKvTile / kKvUnit; ++unit) {
    const float* k = k_tile + unit * dim * kKvUnit;
    typename Isa::Vf acc[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) acc[r] = Isa::Set(0.0f);
    for (int32_t d = 0; d < dim; ++d) {
      const auto kd = Isa::Load(k + d * kKvUnit);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) acc[r] = Isa::Fma(Isa::Set(args.q[row + r][d]), kd, acc[r]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) Isa::Store(scores + r * kKvTile + unit * kKvUnit, acc[r]);
  }
}

// Turns a row's scores into weights and rescales its state; false when the row sees none of them.
template <class Isa>
bool Softmax(const AttendArgs& args, int32_t row, int32_t tile, float* scores) {
  const int32_t low = args.first[row] - args.base - tile;
  const int32_t high = args.last[row] - args.base - tile;
  if (high < 0 || low >= kKvTile) return false;
  for (int32_t t = 0; t < low; ++t) scores[t] = kMinusInfinity;
  for (int32_t t = high + 1; t < kKvTile; ++t) scores[t] = kMinusInfinity;
  using Vf = typename Isa::Vf;
  Vf s[4];
  for (int i = 0; i < 4; ++i) s[i] = Isa::Load(scores + 16 * i);
  const float tile_max = Isa::ReduceMax(Isa::Max(Isa::Max(s[0], s[1]), Isa::Max(s[2], s[3])));
  const float old_max = args.maximum[row];
  const float new_max = tile_max > old_max ? tile_max : old_max;
  const Vf shift = Isa::Set(new_max);
  Vf total = Isa::Set(0.0f);
  for (int i = 0; i < 4; ++i) {
    const Vf p = Exp<Isa>(Isa::Sub(s[i], shift));
    Isa::Store(scores + 16 * i, p);
    total = Isa::Add(total, p);
  }
  const float rescale = old_max == kMinusInfinity ? 0.0f : ExpScalar<Isa>(old_max - new_max);
  args.sum[row] = __builtin_fmaf(args.sum[row], rescale, Isa::ReduceAdd(total));
  args.maximum[row] = new_max;
  if (rescale != 1.0f) {
    float* values = args.values + static_cast<int64_t>(row) * args.head_dim;
    const Vf factor = Isa::Set(rescale);
    for (int32_t d = 0; d < args.head_dim; d += 16) {
      Isa::Store(values + d, Isa::Mul(Isa::Load(values + d), factor));
    }
  }
  return true;
}

// values[r] += weights[r] . v over the first `count` positions of the tile.
template <class Isa, int R>
void WeightedValues(const AttendArgs& args, int32_t row, int32_t count, const float* v_tile,
                    const float* weights) {
  const int32_t dim = args.head_dim;
  float* values = args.values + static_cast<int64_t>(row) * dim;
  for (int32_t d = 0; d < dim; d += 16) {
    typename Isa::Vf acc[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) acc[r] = Isa::Load(values + r * dim + d);
    for (int32_t t = 0; t < count; ++t) {
      const auto v = Isa::Load(v_tile + t * dim + d);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) acc[r] = Isa::Fma(Isa::Set(weights[r * kKvTile + t]), v, acc[r]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) Isa::Store(values + r * dim + d, acc[r]);
  }
}

template <class Isa, int R>
void AttendRows(const AttendArgs& args, int32_t row, int32_t tile, const float* k_tile,
                const float* v_tile) {
  alignas(64) float scores[R * kKvTile];
  Scores<Isa, R>(args, row, k_tile, scores);
  int32_t count = 0;
  for (int r = 0; r < R; ++r) {
    float* row_scores = scores + r * kKvTile;
    if (!Softmax<Isa>(args, row + r, tile, row_scores)) {
      std::memset(row_scores, 0, sizeof(float) * kKvTile);
      continue;
    }
    const int32_t seen = args.last[row + r] - args.base - tile + 1;
    if (seen > count) count = seen < kKvTile ? seen : kKvTile;
  }
  WeightedValues<Isa, R>(args, row, count, v_tile, scores);
}

template <class Isa>
void Attend(const AttendArgs& args) {
  int32_t last = 0;
  for (int32_t r = 0; r < args.rows; ++r) {
    args.maximum[r] = kMinusInfinity;
    args.sum[r] = 0.0f;
    if (args.last[r] > last) last = args.last[r];
  }
  std::memset(args.values, 0, sizeof(float) * args.rows * args.head_dim);
  float* k_tile = args.scratch;
  float* v_tile = args.scratch + kKvTile * args.head_dim;
  for (int32_t tile = 0; tile < kKvSuperTile && args.base + tile <= last; tile += kKvTile) {
    const int32_t valid = last - args.base - tile + 1;
    LoadTile<Isa>(args, tile, valid, k_tile, v_tile);
    int32_t row = 0;
    for (; row + kAttendRows <= args.rows; row += kAttendRows) {
      AttendRows<Isa, kAttendRows>(args, row, tile, k_tile, v_tile);
    }
    for (; row + 3 <= args.rows; row += 3) AttendRows<Isa, 3>(args, row, tile, k_tile, v_tile);
    for (; row < args.rows; ++row) AttendRows<Isa, 1>(args, row, tile, k_tile, v_tile);
  }
}

template <class Isa>
void Merge(const MergeArgs& args) {
  if (args.maximum == kMinusInfinity) return;
  const float old_max = *args.into_maximum;
  const float new_max = args.maximum > old_max ? args.maximum : old_max;
  const float keep = old_max == kMinusInfinity ? 0.0f : ExpScalar<Isa>(old_max - new_max);
  const float add = ExpScalar<Isa>(args.maximum - new_max);
  *args.into_maximum = new_max;
  *args.into_sum = __builtin_fmaf(args.sum, add, *args.into_sum * keep);
  const auto keep_v = Isa::Set(keep);
  const auto add_v = Isa::Set(add);
  for (int32_t d = 0; d < args.head_dim; d += 16) {
    const auto kept = Isa::Mul(Isa::Load(args.into_values + d), keep_v);
    Isa::Store(args.into_values + d, Isa::Fma(Isa::Load(args.values + d), add_v, kept));
  }
}

template <class Isa>
constexpr CpuKernels MakeKernels() {
  return {Isa::kName,   Isa::kBf16Pairs, Matmul<Isa>, Quantize<Isa>, RoundBf16<Isa>,
          RmsNorm<Isa>, SwiGlu<Isa>,     Attend<Isa>, Merge<Isa>};
}

}  // namespace
}  // namespace kvasir::ops
