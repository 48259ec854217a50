// Part of kernels_impl.h: paged attention.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/cpu/kernels.h"
#include "ops/cpu/math_impl.h"

namespace kvasir::ops {
namespace {

// ---- Attention ----

constexpr int kAttendRows = 6;    // query rows that share a pass over a tile in registers
constexpr int kStoredPasses = 2;  // over a tile as it is stored; for more it is expanded
constexpr int kTileUnits = kKvTile / kKvUnit;
constexpr float kMinusInfinity = -__builtin_inff();

// ---- Rounding ----

// The largest magnitude that an element of a type with scales has when it is rounded, and when it
// is loaded.
constexpr float Largest(KvType type) { return type == KvType::kInt8 ? 127.0f : 448.0f; }
constexpr float LargestLoaded(KvType type) {
  return type == KvType::kInt8 ? 127.0f : 448.0f / 256.0f;  // Isa::LoadFp8
}

template <class Isa, KvType kType>
void RoundSixteen(const typename Isa::Vf& x, uint8_t* out) {
  if constexpr (kType == KvType::kF32) Isa::Store(reinterpret_cast<float*>(out), x);
  if constexpr (kType == KvType::kBf16) Isa::StoreBf16(reinterpret_cast<uint16_t*>(out), x);
  if constexpr (kType == KvType::kInt8) Isa::RoundToInt8(x, reinterpret_cast<int8_t*>(out));
  if constexpr (kType == KvType::kFp8) Isa::StoreFp8(out, x);
}

// A row's largest magnitude; NaN where it holds what is not finite.
template <class Isa>
float LargestOf(const float* x, int32_t dim) {
  const auto zero = Isa::Set(0.0f);
  auto largest = zero;
  auto finite = zero;  // stays 0 as long as all is
  for (int32_t d = 0; d < dim; d += 16) {
    const auto v = Isa::Load(x + d);
    largest = Isa::Max(largest, Isa::Abs(v));
    finite = Isa::Fma(v, zero, finite);
  }
  return Isa::ReduceAdd(finite) == 0.0f ? Isa::ReduceMax(largest) : __builtin_nanf("");
}

template <class Isa, KvType kType>
float RoundKvAs(const float* x, int32_t dim, int64_t stride, uint8_t* out) {
  constexpr int64_t kBytes = Info(kType).element_bytes;
  float scale = 1.0f, factor = 1.0f;
  if constexpr (HasScales(kType)) {
    const float largest = LargestOf<Isa>(x, dim);
    scale = largest / LargestLoaded(kType);
    // Zeros, what is nearly zero (whose factor would be infinite) and what is not finite become
    // zeros; the scale of the last is NaN, and so is what attends to it.
    factor = Largest(kType) / largest;
    if (!(factor < 3e38f)) factor = 0.0f;
  }
  alignas(64) uint8_t rounded[16 * kBytes];
  for (int32_t d = 0; d < dim; d += 16) {
    if (factor == 0.0f) {
      std::memset(rounded, 0, sizeof(rounded));
    } else if constexpr (HasScales(kType)) {
      RoundSixteen<Isa, kType>(Isa::Mul(Isa::Load(x + d), Isa::Set(factor)), rounded);
    } else {
      RoundSixteen<Isa, kType>(Isa::Load(x + d), rounded);
    }
    for (int i = 0; i < 16; ++i) {
      std::memcpy(out + (d + i) * stride * kBytes, rounded + i * kBytes, kBytes);
    }
  }
  return scale;
}

template <class Isa>
float RoundKv(KvType type, const float* x, int32_t dim, int64_t stride, uint8_t* out) {
  switch (type) {
    case KvType::kF32:
      return RoundKvAs<Isa, KvType::kF32>(x, dim, stride, out);
    case KvType::kBf16:
      return RoundKvAs<Isa, KvType::kBf16>(x, dim, stride, out);
    case KvType::kInt8:
      return RoundKvAs<Isa, KvType::kInt8>(x, dim, stride, out);
    case KvType::kFp8:
      return RoundKvAs<Isa, KvType::kFp8>(x, dim, stride, out);
  }
  return 0.0f;
}

// ---- Spreading ----

// (a, b) -> (a + b, a - b) of lanes that lie H apart.
template <class Isa, int H>
typename Isa::Vf Butterfly(const typename Isa::Vf& x) {
  alignas(64) float signs[16];
  for (int i = 0; i < 16; ++i) signs[i] = (i & H) != 0 ? -1.0f : 1.0f;
  return Isa::Add(Isa::template Swapped<H>(x), Isa::Mul(x, Isa::Load(signs)));
}

template <class Isa>
void Spread(const float* x, int32_t dim, float factor, float* out) {
  for (int32_t d = 0; d < dim; d += 16) {
    auto v = Isa::Mul(Isa::Load(x + d), Isa::Set(factor));
    v = Butterfly<Isa, 2>(Butterfly<Isa, 1>(v));
    v = Butterfly<Isa, 8>(Butterfly<Isa, 4>(v));
    Isa::Store(out + d, v);
  }
  for (int32_t apart = 16; apart < SpreadWidth(dim); apart *= 2) {
    for (int32_t d = 0; d < dim; d += 16) {
      if ((d & apart) != 0) continue;
      const auto a = Isa::Load(out + d);
      const auto b = Isa::Load(out + d + apart);
      Isa::Store(out + d, Isa::Add(a, b));
      Isa::Store(out + d + apart, Isa::Sub(a, b));
    }
  }
}

// ---- Tiles ----

// Sixteen elements as floats, without their scale.
template <class Isa, KvType kType>
typename Isa::Vf LoadStored(const uint8_t* unit, int64_t element) {
  if constexpr (kType == KvType::kF32) {
    return Isa::Load(reinterpret_cast<const float*>(unit) + element);
  } else if constexpr (kType == KvType::kBf16) {
    return Isa::LoadBf16(unit + 2 * element);
  } else if constexpr (kType == KvType::kInt8) {
    return Isa::LoadS8(unit + element);
  } else {
    return Isa::LoadFp8(unit + element);
  }
}

// K and V of a tile straight from the cache.
template <class Isa, KvType kType>
struct StoredKv {
  const AttendArgs& args;
  int32_t first_unit;

  typename Isa::Vf Key(int32_t unit, int32_t d) const {
    return LoadStored<Isa, kType>(args.k[first_unit + unit], int64_t{d} * kKvUnit);
  }
  typename Isa::Vf Value(int32_t unit, int32_t t, int32_t d) const {
    return LoadStored<Isa, kType>(args.v[first_unit + unit], int64_t{t} * args.v_dim + d);
  }
};

// The same, expanded once for many rows: K as [units][k_dim][16], V as [units][16][v_dim].
template <class Isa>
struct ExpandedKv {
  const AttendArgs& args;
  const float* k;
  const float* v;

  typename Isa::Vf Key(int32_t unit, int32_t d) const {
    return Isa::Load(k + (int64_t{unit} * args.k_dim + d) * kKvUnit);
  }
  typename Isa::Vf Value(int32_t unit, int32_t t, int32_t d) const {
    return Isa::Load(v + (int64_t{unit} * kKvUnit + t) * args.v_dim + d);
  }
};

// Out of K where V is a part of it.
template <class Isa, KvType kType>
ExpandedKv<Isa> Expand(const AttendArgs& args, int32_t first_unit, int32_t units) {
  float* k = args.scratch;
  float* v = args.scratch + int64_t{kKvTile} * args.k_dim;
  const int32_t k_unit = args.k_dim * kKvUnit, v_unit = args.v_dim * kKvUnit;
  for (int32_t unit = 0; unit < units; ++unit) {
    float* keys = k + unit * k_unit;
    float* values = v + unit * v_unit;
    const uint8_t* stored = args.k[first_unit + unit];
    for (int32_t i = 0; i < k_unit; i += 16) {
      Isa::Store(keys + i, LoadStored<Isa, kType>(stored, i));
    }
    if (args.v_in_k) {
      for (int32_t t = 0; t < kKvUnit; ++t) {
        for (int32_t d = 0; d < args.v_dim; ++d) values[t * args.v_dim + d] = keys[d * kKvUnit + t];
      }
      continue;
    }
    stored = args.v[first_unit + unit];
    for (int32_t i = 0; i < v_unit; i += 16) {
      Isa::Store(values + i, LoadStored<Isa, kType>(stored, i));
    }
  }
  return {args, k, v};
}

// ---- Scores ----

// How many units or columns of 16 are taken at once, so that additions that wait for each other
// leave no gaps. It changes no bit: no two lanes are ever added.
template <class Isa>
constexpr int AtOnce(int rows) {
  return !Isa::kRegisters ? 1 : rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}

// out[r][n] = q[r] . k over the columns [begin, end) of unit + n, added up in order.
template <class Isa, int R, int N, class Tile>
void Dot(const AttendArgs& args, const Tile& tile, int32_t row, int32_t unit, int32_t begin,
         int32_t end, typename Isa::Vf (&out)[R][N]) {
  typename Isa::Vf acc[R][N];  // in registers, which `out` need not be
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) acc[r][n] = Isa::Set(0.0f);
  }
  const float* const* q = args.q + row;
  for (int32_t d = begin; d < end; ++d) {
    typename Isa::Vf k[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) k[n] = tile.Key(unit + n, d);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const auto x = Isa::Set(q[r][d]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) acc[r][n] = Isa::Fma(x, k[n], acc[r][n]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) out[r][n] = acc[r][n];
  }
}

// Scores of N units. Sums over what the cache holds are multiplied by the row's scale; where V is
// a part of K, its columns bear V's scale and the others K's.
template <class Isa, bool kScaled, int R, int N, class Tile>
void ScoreUnits(const AttendArgs& args, const Tile& tile, int32_t row, int32_t first_unit,
                int32_t unit, float* scores) {
  typename Isa::Vf acc[R][N];
  if constexpr (!kScaled) {
    Dot<Isa, R, N>(args, tile, row, unit, 0, args.k_dim, acc);
  } else {
    const int32_t split = args.v_in_k ? args.v_dim : 0;
    Dot<Isa, R, N>(args, tile, row, unit, split, args.k_dim, acc);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const auto scale = Isa::Load(args.k_scale[first_unit + unit + n]);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) acc[r][n] = Isa::Mul(acc[r][n], scale);
    }
    if (split > 0) {
      typename Isa::Vf part[R][N];
      Dot<Isa, R, N>(args, tile, row, unit, 0, split, part);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const auto scale = Isa::Load(args.v_scale[first_unit + unit + n]);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) acc[r][n] = Isa::Fma(part[r][n], scale, acc[r][n]);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      if (args.softcap > 0.0f) acc[r][n] = Softcapped<Isa>(args.softcap, acc[r][n]);
      Isa::Store(scores + r * kKvTile + (unit + n) * kKvUnit, acc[r][n]);
    }
  }
}

// scores[r][64] of a tile's first `units` units; those of positions that no row sees are whatever
// lies in the cache, and no one's.
template <class Isa, bool kScaled, int R, class Tile>
void Scores(const AttendArgs& args, const Tile& tile, int32_t row, int32_t first_unit,
            int32_t units, float* scores) {
  constexpr int kN = AtOnce<Isa>(R);
  int32_t unit = 0;
  for (; unit + kN <= units; unit += kN) {
    ScoreUnits<Isa, kScaled, R, kN>(args, tile, row, first_unit, unit, scores);
  }
  for (; unit < units; ++unit) {
    ScoreUnits<Isa, kScaled, R, 1>(args, tile, row, first_unit, unit, scores);
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
    float* values = args.values + static_cast<int64_t>(row) * args.v_dim;
    const Vf factor = Isa::Set(rescale);
    for (int32_t d = 0; d < args.v_dim; d += 16) {
      Isa::Store(values + d, Isa::Mul(Isa::Load(values + d), factor));
    }
  }
  return true;
}

// ---- Values ----

// values[r][16 columns] += weights[r] . v, position by position.
template <class Isa, int R, int N, class Tile>
void AddColumns(const AttendArgs& args, const Tile& tile, int32_t d, int32_t count,
                const float* weights, float* values) {
  typename Isa::Vf acc[R][N];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      acc[r][n] = Isa::Load(values + int64_t{r} * args.v_dim + d + 16 * n);
    }
  }
  for (int32_t unit = 0; unit * kKvUnit < count; ++unit) {
    const int32_t rest = count - unit * kKvUnit;
    for (int32_t t = 0; t < (rest < kKvUnit ? rest : kKvUnit); ++t) {
      typename Isa::Vf v[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) v[n] = tile.Value(unit, t, d + 16 * n);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const auto w = Isa::Set(weights[r * kKvTile + unit * kKvUnit + t]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) acc[r][n] = Isa::Fma(w, v[n], acc[r][n]);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      Isa::Store(values + int64_t{r} * args.v_dim + d + 16 * n, acc[r][n]);
    }
  }
}

// values[r] += weights[r] . v over the first `count` positions of the tile.
template <class Isa, int R, class Tile>
void WeightedValues(const AttendArgs& args, const Tile& tile, int32_t row, int32_t count,
                    const float* weights) {
  constexpr int kN = AtOnce<Isa>(R);
  float* values = args.values + static_cast<int64_t>(row) * args.v_dim;
  int32_t d = 0;
  for (; d + 16 * kN <= args.v_dim; d += 16 * kN) {
    AddColumns<Isa, R, kN>(args, tile, d, count, weights, values);
  }
  for (; d < args.v_dim; d += 16) AddColumns<Isa, R, 1>(args, tile, d, count, weights, values);
}

// ---- Rows ----

template <class Isa, bool kScaled, int R, class Tile>
void AttendRows(const AttendArgs& args, const Tile& tile, int32_t row, int32_t at, int32_t units) {
  alignas(64) float scores[R * kKvTile];
  Scores<Isa, kScaled, R>(args, tile, row, at / kKvUnit, units, scores);
  int32_t count = 0;
  for (int r = 0; r < R; ++r) {
    float* row_scores = scores + r * kKvTile;
    if (!Softmax<Isa>(args, row + r, at, row_scores)) {
      std::memset(row_scores, 0, sizeof(float) * kKvTile);
      continue;
    }
    const int32_t seen = args.last[row + r] - args.base - at + 1;
    if (seen > count) count = seen < kKvTile ? seen : kKvTile;
    if constexpr (kScaled) {
      for (int32_t unit = 0; unit < units; ++unit) {
        float* weights = row_scores + unit * kKvUnit;
        const auto scale = Isa::Load(args.v_scale[at / kKvUnit + unit]);
        Isa::Store(weights, Isa::Mul(Isa::Load(weights), scale));
      }
    }
  }
  WeightedValues<Isa, R>(args, tile, row, count, scores);
}

// `at` is the tile's place in the super-tile; its first `units` units hold what rows see.
template <class Isa, bool kScaled, class Tile>
void AttendTile(const AttendArgs& args, const Tile& tile, int32_t at, int32_t units) {
  for (int32_t row = 0; row < args.rows;) {
    const int32_t rest = args.rows - row;
    const int32_t passes = (rest + kAttendRows - 1) / kAttendRows;
    const int32_t rows = (rest + passes - 1) / passes;
    switch (rows) {
      case 1:
        AttendRows<Isa, kScaled, 1>(args, tile, row, at, units);
        break;
      case 2:
        AttendRows<Isa, kScaled, 2>(args, tile, row, at, units);
        break;
      case 3:
        AttendRows<Isa, kScaled, 3>(args, tile, row, at, units);
        break;
      case 4:
        AttendRows<Isa, kScaled, 4>(args, tile, row, at, units);
        break;
      case 5:
        AttendRows<Isa, kScaled, 5>(args, tile, row, at, units);
        break;
      default:
        AttendRows<Isa, kScaled, kAttendRows>(args, tile, row, at, units);
    }
    row += rows;
  }
}

template <class Isa, KvType kType>
void AttendOver(const AttendArgs& args) {
  constexpr bool kScaled = HasScales(kType);
  int32_t last = 0;
  for (int32_t r = 0; r < args.rows; ++r) {
    args.maximum[r] = kMinusInfinity;
    args.sum[r] = 0.0f;
    if (args.last[r] > last) last = args.last[r];
  }
  std::memset(args.values, 0, sizeof(float) * args.rows * args.v_dim);
  // References, whose speed does not matter, have the one way.
  constexpr bool kReference = kType == KvType::kF32 || !Isa::kRegisters;
  const bool expand = kReference || args.v_in_k || args.rows > kStoredPasses * kAttendRows;
  for (int32_t at = 0; at < kKvSuperTile && args.base + at <= last; at += kKvTile) {
    const int32_t filled = (last - args.base - at) / kKvUnit + 1;
    const int32_t units = filled < kTileUnits ? filled : kTileUnits;
    if (expand) {
      const ExpandedKv<Isa> tile = Expand<Isa, kType>(args, at / kKvUnit, units);
      AttendTile<Isa, kScaled>(args, tile, at, units);
    } else if constexpr (!kReference) {
      const StoredKv<Isa, kType> tile{args, at / kKvUnit};
      AttendTile<Isa, kScaled>(args, tile, at, units);
    }
  }
}

template <class Isa>
void Attend(const AttendArgs& args) {
  switch (args.type) {
    case KvType::kF32:
      return AttendOver<Isa, KvType::kF32>(args);
    case KvType::kBf16:
      return AttendOver<Isa, KvType::kBf16>(args);
    case KvType::kInt8:
      return AttendOver<Isa, KvType::kInt8>(args);
    case KvType::kFp8:
      return AttendOver<Isa, KvType::kFp8>(args);
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
  for (int32_t d = 0; d < args.v_dim; d += 16) {
    const auto kept = Isa::Mul(Isa::Load(args.into_values + d), keep_v);
    Isa::Store(args.into_values + d, Isa::Fma(Isa::Load(args.values + d), add_v, kept));
  }
}

}  // namespace
}  // namespace kvasir::ops
