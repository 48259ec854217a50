#include "ops/calibrated_rounding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "ops/cpu/dispatch.h"
#include "ops/quantize_weights.h"

namespace kvasir::ops {
namespace {

class CalibratedRoundingTest : public testing::Test {
 protected:
  std::vector<float> Normal(int64_t count, float deviation) {
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> out(count);
    for (float& x : out) x = normal(random_);
    return out;
  }

  // Rows whose columns depend on few causes, as those of models do.
  std::vector<float> Correlated(int64_t rows, int64_t cols, int64_t causes) {
    const std::vector<float> mix = Normal(causes * cols, 1.0f);
    std::vector<float> out = Normal(rows * cols, 0.1f);
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> cause = Normal(causes, 1.0f);
      for (int64_t i = 0; i < causes * cols; ++i) {
        out[r * cols + i % cols] += cause[i / cols] * mix[i];
      }
    }
    return out;
  }

  InputMoments MomentsOf(const std::vector<float>& rows, int64_t cols) {
    InputMoments out(cols);
    out.Add(rows.data(), static_cast<int64_t>(rows.size()) / cols, **SelectKernels("auto"), pool_);
    return out;
  }

  static MatrixSource Source(const std::vector<float>& weights, int64_t cols) {
    return {.dtype = DType::kF32,
            .rows = static_cast<int64_t>(weights.size()) / cols,
            .cols = cols,
            .data = reinterpret_cast<const uint8_t*>(weights.data())};
  }

  // |x (w - rounded)|^2 over all rows x of inputs and w of weights.
  static double Cost(const std::vector<float>& inputs, const std::vector<float>& weights,
                     const std::vector<IntegerRow>& rounded, int64_t cols, int64_t group) {
    double sum = 0;
    for (size_t w = 0; w < rounded.size(); ++w) {
      std::vector<double> off(cols);
      for (int64_t c = 0; c < cols; ++c) {
        const IntegerRow& row = rounded[w];
        off[c] = weights[w * cols + c] -
                 double{row.scale[c / group]} * (row.q[c] - int{row.zero[c / group]});
      }
      for (size_t x = 0; x < inputs.size(); x += cols) {
        double product = 0;
        for (int64_t c = 0; c < cols; ++c) product += inputs[x + c] * off[c];
        sum += product * product;
      }
    }
    return sum;
  }

  std::vector<IntegerRow> RoundAlone(const std::vector<float>& weights, int64_t cols,
                                     PanelLayout layout, int bits, bool has_zero) {
    std::vector<IntegerRow> out(weights.size() / cols);
    for (size_t r = 0; r < out.size(); ++r) {
      RoundToIntegers(&weights[r * cols], cols, layout.group, bits, has_zero, out[r]);
    }
    return out;
  }

  std::mt19937 random_{11};
  ThreadPool pool_{2};
};

TEST_F(CalibratedRoundingTest, MomentsAreTheSumsOfProducts) {
  const int64_t cols = 100, rows = 1100;  // more than are added at a time
  const std::vector<float> x = Normal(rows * cols, 1.0f);
  const InputMoments moments = MomentsOf(x, cols);
  EXPECT_EQ(moments.rows(), rows);
  for (int64_t i = 0; i < cols; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r) sum += double{x[r * cols + i]} * x[r * cols + j];
      ASSERT_NEAR(moments.at(i, j), sum, 1e-2) << i << " " << j;
    }
  }
}

TEST_F(CalibratedRoundingTest, TheFactorTimesItsTransposeIsTheMoments) {
  for (const int64_t cols : {1, 63, 64, 65, 200}) {
    const std::vector<float> x = Correlated(300, cols, 8);
    const InputMoments moments = MomentsOf(x, cols);
    double trace = 0;
    for (int64_t i = 0; i < cols; ++i) trace += moments.at(i, i);
    const double damping = 0.01 * trace / static_cast<double>(cols);
    const RoundingFactor factor(moments, pool_);
    for (int64_t i = 0; i < cols; ++i) {
      EXPECT_EQ(factor.position(factor.column(i)), i);
      for (int64_t j = 0; j <= i; ++j) {
        double sum = 0;
        for (int64_t k = i; k < cols; ++k) sum += double{factor.row(i)[k]} * factor.row(j)[k];
        const auto [low, high] = std::minmax({factor.column(i), factor.column(j)});
        ASSERT_NEAR(sum, moments.at(high, low) + (i == j ? damping : 0), 1e-3 * trace / cols)
            << cols << ": " << i << " " << j;
      }
    }
  }
}

// One input a column: nothing can make up for anything.
TEST_F(CalibratedRoundingTest, IndependentColumnsAreRoundedAsAlone) {
  const int64_t cols = 128;
  std::vector<float> x(cols * cols, 0.0f);
  for (int64_t i = 0; i < cols; ++i) x[i * cols + i] = 3.0f;
  const RoundingFactor factor(MomentsOf(x, cols), pool_);
  const std::vector<float> weights = Normal(40 * cols, 0.02f);
  const PanelLayout layout{PanelFormat::kInt4Zero, 32};
  const auto alone = RoundAlone(weights, cols, layout, 4, true);
  const auto rounded = RoundCalibrated(Source(weights, cols), layout, factor, pool_);
  ASSERT_EQ(rounded.size(), alone.size());
  for (size_t r = 0; r < alone.size(); ++r) {
    EXPECT_EQ(rounded[r].q, alone[r].q);
    EXPECT_EQ(rounded[r].scale, alone[r].scale);
    EXPECT_EQ(rounded[r].zero, alone[r].zero);
  }
}

TEST_F(CalibratedRoundingTest, CostsAFractionOfRoundingAlone) {
  const int64_t cols = 256;
  const std::vector<float> inputs = Correlated(600, cols, 24), weights = Normal(48 * cols, 0.02f);
  const std::vector<float> others = Correlated(1, cols, 1);
  const RoundingFactor factor(MomentsOf(inputs, cols), pool_);
  struct Case {
    PanelLayout layout;
    int bits;
    bool has_zero;
  };
  for (const Case& c :
       {Case{{PanelFormat::kInt4Zero, 128}, 4, true}, Case{{PanelFormat::kInt4, 32}, 4, false},
        Case{{PanelFormat::kInt8, cols}, 8, false}}) {
    const auto alone = RoundAlone(weights, cols, c.layout, c.bits, c.has_zero);
    const auto rounded = RoundCalibrated(Source(weights, cols), c.layout, factor, pool_);
    const double before = Cost(inputs, weights, alone, cols, c.layout.group);
    EXPECT_LT(Cost(inputs, weights, rounded, cols, c.layout.group), 0.35 * before) << c.bits;
  }
}

TEST_F(CalibratedRoundingTest, ThreadsChangeNothing) {
  const int64_t cols = 192;
  const std::vector<float> inputs = Correlated(300, cols, 8), weights = Normal(50 * cols, 0.02f);
  ThreadPool one(1);
  const RoundingFactor a(MomentsOf(inputs, cols), one), b(MomentsOf(inputs, cols), pool_);
  const PanelLayout layout{PanelFormat::kInt4Zero, 64};
  const auto with_one = RoundCalibrated(Source(weights, cols), layout, a, one);
  const auto with_two = RoundCalibrated(Source(weights, cols), layout, b, pool_);
  for (size_t r = 0; r < with_one.size(); ++r) {
    EXPECT_EQ(with_one[r].q, with_two[r].q);
    EXPECT_EQ(with_one[r].scale, with_two[r].scale);
  }
}

TEST_F(CalibratedRoundingTest, ColumnsThatAreNeverUsedAndNumbersThatAreNoneDoNoHarm) {
  const int64_t cols = 64;
  const RoundingFactor factor(InputMoments{cols}, pool_);
  std::vector<float> weights = Normal(2 * cols, 0.02f);
  weights[3] = NAN;
  weights[cols + 5] = INFINITY;
  const auto rounded =
      RoundCalibrated(Source(weights, cols), {PanelFormat::kInt4Zero, 32}, factor, pool_);
  for (const IntegerRow& row : rounded) {
    for (const float scale : row.scale) EXPECT_TRUE(std::isfinite(scale));
  }
}

}  // namespace
}  // namespace kvasir::ops
