#include "ops/calibrated_rounding.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "ops/pack_scaled.h"
#include "ops/rounding_grid.h"

namespace kvasir::ops {
namespace {

constexpr int64_t kAdded = 512;         // rows of inputs that are added at a time
constexpr int64_t kTile = 64;           // columns of a tile
constexpr int64_t kLanes = kPanelRows;  // rows of weights that are rounded together
constexpr double kDamping = 0.01;       // of the mean of the diagonal

}  // namespace

// A product of the transposed rows with themselves, by the kernels: of each tile of rows up to the
// diagonal.
void InputMoments::Add(const float* rows, int64_t count, const CpuKernels& kernels,
                       ThreadPool& pool) {
  for (; count > kAdded; rows += kAdded * cols_, count -= kAdded) Add(rows, kAdded, kernels, pool);
  if (count == 0) return;
  rows_ += count;
  std::vector<float> transposed(cols_ * count);
  pool.ParallelFor(cols_, [&](int64_t c, int) {
    for (int64_t r = 0; r < count; ++r) transposed[c * count + r] = rows[r * cols_ + c];
  });
  const MatrixSource source{.dtype = DType::kF32,
                            .rows = cols_,
                            .cols = count,
                            .data = reinterpret_cast<const uint8_t*>(transposed.data())};
  const StatusOr<PackedMatrix> packed = Pack({&source, 1}, PanelFormat::kF32, pool);
  KVASIR_CHECK(packed.ok(), "floats are packed");
  pool.ParallelFor((cols_ + kTile - 1) / kTile, [&](int64_t tile, int) {
    MatmulArgs args;
    args.weights = packed->view;
    args.row_begin = tile * kTile;
    args.row_end = std::min(cols_, args.row_begin + kTile);
    args.panel_end = (args.row_end + kPanelRows - 1) / kPanelRows;
    args.floats = transposed.data();
    args.out = sums_.data();
    args.out_stride = cols_;
    args.accumulate = true;
    kernels.matmul(args);
  });
}

RoundingFactor::RoundingFactor(const InputMoments& moments, ThreadPool& pool)
    : cols_(moments.cols()), order_(cols_), position_(cols_), r_(cols_ * cols_) {
  double trace = 0;
  for (int64_t i = 0; i < cols_; ++i) trace += moments.at(i, i);
  const float damping =
      trace > 0 ? static_cast<float>(kDamping * trace / static_cast<double>(cols_)) : 1.0f;
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int64_t a, int64_t b) { return moments.at(a, a) > moments.at(b, b); });
  for (int64_t i = 0; i < cols_; ++i) position_[order_[i]] = i;
  pool.ParallelFor(cols_, [&](int64_t i, int) {
    float* const out = r_.data() + i * cols_;
    for (int64_t j = 0; j < cols_; ++j) {
      const auto [low, high] = std::minmax(order_[i], order_[j]);
      out[j] = moments.at(high, low);
    }
    out[i] += damping;
  });
  Decompose(damping, pool);
}

// Cholesky from the last column to the first, a tile of columns at a time. What the columns behind
// the tile are to it is taken off by tiles of rows; then the tile is finished column by column.
void RoundingFactor::Decompose(float least, ThreadPool& pool) {
  std::vector<float> columns;  // of the tile's rows, [behind][kTile]
  for (int64_t end = cols_; end > 0;) {
    const int64_t begin = (end - 1) / kTile * kTile, width = end - begin, behind = cols_ - end;
    columns.assign(behind * kTile, 0.0f);
    for (int64_t j = 0; j < width; ++j) {
      const float* r = row(begin + j) + end;
      for (int64_t k = 0; k < behind; ++k) columns[k * kTile + j] = r[k];
    }
    pool.ParallelFor(end, [&](int64_t i, int) {
      float* const out = r_.data() + i * cols_;
      float sums[kTile] = {};
      for (int64_t k = 0; k < behind; ++k) {
        const float x = out[end + k];
        const float* const column = &columns[k * kTile];
        for (int64_t j = 0; j < kTile; ++j) sums[j] += x * column[j];
      }
      for (int64_t j = 0; j < width; ++j) out[begin + j] -= sums[j];
    });
    for (int64_t j = end - 1; j >= begin; --j) {
      const float* const own = row(j);
      float pivot = own[j];
      for (int64_t k = j + 1; k < end; ++k) pivot -= own[k] * own[k];
      r_[j * cols_ + j] = std::sqrt(std::max(pivot, least));
      for (int64_t i = begin; i < j; ++i) {
        float* const other = r_.data() + i * cols_;
        for (int64_t k = j + 1; k < end; ++k) other[j] -= other[k] * own[k];
        other[j] /= own[j];
      }
    }
    pool.ParallelFor(begin, [&](int64_t i, int) {
      float* const out = r_.data() + i * cols_;
      for (int64_t j = end - 1; j >= begin; --j) {
        const float* const own = row(j);
        for (int64_t k = j + 1; k < end; ++k) out[j] -= out[k] * own[k];
        out[j] /= own[j];
      }
    });
    end = begin;
  }
}

namespace {

// Rounds rows [first, first + count) together, a lane each.
class LaneRounder {
 public:
  LaneRounder(PanelLayout layout, const RoundingFactor& factor)
      : group_(layout.group),
        bits_(BitsOf(layout.format)),
        has_zero_(HasZero(layout.format)),
        factor_(factor),
        weights_(factor.cols() * kLanes),
        errors_(factor.cols() * kLanes),
        grids_(factor.cols() / layout.group * kLanes) {}

  void Round(const MatrixSource& source, int64_t first, int64_t count, IntegerRow* out) {
    const int64_t cols = factor_.cols();
    std::vector<float> row(cols);
    std::fill(weights_.begin(), weights_.end(), 0.0f);
    std::fill(errors_.begin(), errors_.end(), 0.0f);
    for (int64_t lane = 0; lane < count; ++lane) {
      LoadRow(source, first + lane, row.data());
      for (int64_t p = 0; p < cols; ++p) {
        const float weight = row[factor_.column(p)];
        weights_[p * kLanes + lane] = std::isfinite(weight) ? weight : 0.0f;
      }
      out[lane].q.resize(cols);
      out[lane].scale.resize(cols / group_);
      out[lane].zero.resize(cols / group_);
    }
    std::vector<bool> has_grid(cols / group_, false);
    for (int64_t p = 0; p < cols; ++p) {
      const int64_t column = factor_.column(p), group = column / group_;
      if (!has_grid[group]) {
        has_grid[group] = true;
        for (int64_t lane = 0; lane < count; ++lane) ChooseGrid(group, lane, out[lane]);
      }
      float off[kLanes] = {};
      for (int64_t lane = 0; lane < count; ++lane) {
        const RoundingGrid& grid = grids_[group * kLanes + lane];
        const int q = grid.Nearest(Wanted(p, lane));
        out[lane].q[column] = static_cast<uint8_t>(q);
        off[lane] = weights_[p * kLanes + lane] - grid.Value(q);
      }
      const float* const r = factor_.row(p);
      for (int64_t j = p + 1; j < cols; ++j) {
        float* const sums = &errors_[j * kLanes];
        for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += r[j] * off[lane];
      }
    }
  }

 private:
  // What would make up for the columns that are rounded.
  float Wanted(int64_t p, int64_t lane) const {
    return weights_[p * kLanes + lane] + errors_[p * kLanes + lane] / factor_.row(p)[p];
  }

  void ChooseGrid(int64_t group, int64_t lane, IntegerRow& out) {
    wanted_.resize(group_);
    costs_.resize(group_);
    for (int64_t i = 0; i < group_; ++i) {
      const int64_t p = factor_.position(group * group_ + i);
      const float own = factor_.row(p)[p];
      wanted_[i] = Wanted(p, lane);
      costs_[i] = own * own;
    }
    const RoundingGrid grid =
        BestGrid(wanted_.data(), costs_.data(), group_, bits_, has_zero_, group_ < factor_.cols());
    grids_[group * kLanes + lane] = grid;
    out.scale[group] = grid.scale;
    out.zero[group] = static_cast<uint8_t>(grid.zero);
  }

  const int64_t group_;
  const int bits_;
  const bool has_zero_;
  const RoundingFactor& factor_;
  std::vector<float> weights_;       // [positions][kLanes]
  std::vector<float> errors_;        // [positions][kLanes]: of R^T e, from what is rounded
  std::vector<float> wanted_;        // of a group
  std::vector<float> costs_;         // of an error of 1 that no column behind makes up for
  std::vector<RoundingGrid> grids_;  // [groups][kLanes]
};

}  // namespace

std::vector<IntegerRow> RoundCalibrated(const MatrixSource& source, PanelLayout layout,
                                        const RoundingFactor& factor, ThreadPool& pool) {
  KVASIR_CHECK(source.cols == factor.cols() && source.cols % layout.group == 0,
               "a row is made of whole groups, and as wide as what it is multiplied with");
  std::vector<IntegerRow> out(source.rows);
  pool.ParallelFor((source.rows + kLanes - 1) / kLanes, [&](int64_t tile, int) {
    const int64_t first = tile * kLanes;
    LaneRounder(layout, factor)
        .Round(source, first, std::min(kLanes, source.rows - first), &out[first]);
  });
  return out;
}

}  // namespace kvasir::ops
