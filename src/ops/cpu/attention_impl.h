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

constexpr int kAttendRows = 6;  // query rows that share a pass over a tile in registers
constexpr float kMinusInfinity = -__builtin_inff();

// K of a tile as [4 units][k_dim][16] floats; positions from `valid` on are zero, because their
// memory may hold another sequence's leavings.
template <class Isa>
void LoadKeys(const AttendArgs& args, int32_t tile, int32_t valid, float* k_tile) {
  const int32_t dim = args.k_dim;
  for (int32_t unit = 0; unit < kKvTile / kKvUnit; ++unit) {
    const uint8_t* stored = args.k[tile / kKvUnit + unit];
    const int32_t filled = valid - unit * kKvUnit;
    float* out = k_tile + unit * dim * kKvUnit;
    if (filled <= 0) {
      std::memset(out, 0, sizeof(float) * dim * kKvUnit);
      continue;
    }
    for (int32_t i = 0; i < dim * kKvUnit; i += 16) {
      Isa::Store(out + i, args.kv_f32 ? Isa::Load(reinterpret_cast<const float*>(stored) + i)
                                      : Isa::LoadBf16(stored + i * int64_t{2}));
    }
    for (int32_t d = 0; filled < kKvUnit && d < dim; ++d) {
      for (int32_t t = filled; t < kKvUnit; ++t) out[d * kKvUnit + t] = 0.0f;
    }
  }
}

// V of a tile as [64][v_dim], zero likewise; out of K where V is a part of it.
template <class Isa>
void LoadValues(const AttendArgs& args, int32_t tile, int32_t valid, const float* k_tile,
                float* v_tile) {
  const int32_t dim = args.v_dim;
  for (int32_t unit = 0; unit < kKvTile / kKvUnit; ++unit) {
    float* out = v_tile + unit * dim * kKvUnit;
    if (args.v_in_k) {
      const float* keys = k_tile + unit * args.k_dim * kKvUnit;
      for (int32_t t = 0; t < kKvUnit; ++t) {
        for (int32_t d = 0; d < dim; ++d) out[t * dim + d] = keys[d * kKvUnit + t];
      }
      continue;
    }
    const uint8_t* stored = args.v[tile / kKvUnit + unit];
    const int32_t filled = valid - unit * kKvUnit;
    const int32_t rows = filled < 0 ? 0 : filled < kKvUnit ? filled : kKvUnit;
    for (int32_t i = 0; i < dim * rows; i += 16) {
      Isa::Store(out + i, args.kv_f32 ? Isa::Load(reinterpret_cast<const float*>(stored) + i)
                                      : Isa::LoadBf16(stored + i * int64_t{2}));
    }
    std::memset(out + rows * dim, 0, sizeof(float) * dim * (kKvUnit - rows));
  }
}

// scores[r][64] = q[r] . k, added up over the head dimension in order.
template <class Isa, int R>
void Scores(const AttendArgs& args, int32_t row, const float* k_tile, float* scores) {
  const int32_t dim = args.k_dim;
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
    for (int r = 0; r < R; ++r) {
      if (args.softcap > 0.0f) acc[r] = Softcapped<Isa>(args.softcap, acc[r]);
      Isa::Store(scores + r * kKvTile + unit * kKvUnit, acc[r]);
    }
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

// values[r] += weights[r] . v over the first `count` positions of the tile.
template <class Isa, int R>
void WeightedValues(const AttendArgs& args, int32_t row, int32_t count, const float* v_tile,
                    const float* weights) {
  const int32_t dim = args.v_dim;
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
  std::memset(args.values, 0, sizeof(float) * args.rows * args.v_dim);
  float* k_tile = args.scratch;
  float* v_tile = args.scratch + kKvTile * args.k_dim;
  for (int32_t tile = 0; tile < kKvSuperTile && args.base + tile <= last; tile += kKvTile) {
    const int32_t valid = last - args.base - tile + 1;
    LoadKeys<Isa>(args, tile, valid, k_tile);
    LoadValues<Isa>(args, tile, valid, k_tile, v_tile);
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
  for (int32_t d = 0; d < args.v_dim; d += 16) {
    const auto kept = Isa::Mul(Isa::Load(args.into_values + d), keep_v);
    Isa::Store(args.into_values + d, Isa::Fma(Isa::Load(args.values + d), add_v, kept));
  }
}

}  // namespace
}  // namespace kvasir::ops
