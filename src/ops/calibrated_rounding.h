// Rounding that knows what the weights are multiplied with: columns are rounded one after the
// other, and each makes up, as well as it can, for what those before it changed in the products
// (Frantar et al., GPTQ; as nearest planes, Chen et al., The Geometry of LLM Quantization).
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "ops/cpu/kernels.h"
#include "ops/packing.h"
#include "ops/scaled_matrix.h"

namespace kvasir::ops {

// The sum of x x^T over the rows x that a product reads.
class InputMoments {
 public:
  explicit InputMoments(int64_t cols) : cols_(cols), sums_(cols * cols) {}

  // Adds `count` rows of `cols` floats, dense.
  void Add(const float* rows, int64_t count, const CpuKernels& kernels, ThreadPool& pool);

  int64_t cols() const { return cols_; }
  int64_t rows() const { return rows_; }
  // Of row >= column; the rest is not kept.
  float at(int64_t row, int64_t column) const { return sums_[row * cols_ + column]; }

 private:
  const int64_t cols_;
  int64_t rows_ = 0;
  std::vector<float> sums_;  // [cols][cols]
};

// The upper triangle R with R R^T = moments, to whose diagonal a hundredth of its mean is added:
// the error e of a row of weights costs |R^T e|^2 in its products, and element j of R^T e depends
// on no column behind j. Columns stand in the order in which they are rounded: those that are
// multiplied with the largest inputs first, so that all others can make up for them.
class RoundingFactor {
 public:
  RoundingFactor(const InputMoments& moments, ThreadPool& pool);

  int64_t cols() const { return cols_; }
  // The column of the matrix at a position of the order, and the reverse.
  int64_t column(int64_t position) const { return order_[position]; }
  int64_t position(int64_t column) const { return position_[column]; }
  // Row `position` of R; what is before `position` in it is not zeroed.
  const float* row(int64_t position) const { return r_.data() + position * cols_; }

 private:
  // `least` is what no pivot can be below, but for rounding.
  void Decompose(float least, ThreadPool& pool);

  const int64_t cols_;
  std::vector<int64_t> order_, position_;
  std::vector<float> r_;
};

// Rounds all rows of a matrix, as stored, to the integers of a layout with groups: as
// RoundToIntegers does where columns are independent.
std::vector<IntegerRow> RoundCalibrated(const MatrixSource& source, PanelLayout layout,
                                        const RoundingFactor& factor, ThreadPool& pool);

}  // namespace kvasir::ops
