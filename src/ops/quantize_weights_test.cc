#include "ops/quantize_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "ops/packing.h"

namespace kvasir::ops {
namespace {

constexpr int64_t kCols = 256;

// The error of a row that went to blocks and back, as a share of its norm.
double RelativeError(DType type, const std::vector<float>& x) {
  std::vector<uint8_t> blocks(kCols / 32 * Info(type).block_bytes);
  QuantizeRow(type, x.data(), kCols, blocks.data());
  std::vector<float> back(kCols);
  DequantizeRow(type, blocks.data(), kCols, back.data());
  double error = 0, norm = 0;
  for (int64_t i = 0; i < kCols; ++i) {
    error += (double{x[i]} - back[i]) * (double{x[i]} - back[i]);
    norm += double{x[i]} * x[i];
  }
  return std::sqrt(error / norm);
}

TEST(QuantizeRowTest, ComesCloseInEveryFormat) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (int round = 0; round < 20; ++round) {
    std::vector<float> x(kCols);
    for (float& v : x) v = normal(random);
    EXPECT_LT(RelativeError(DType::kQ8_0, x), 0.007);
    EXPECT_LT(RelativeError(DType::kQ4_1, x), 0.080);
    // What lies off zero is what a minimum is for.
    for (float& v : x) v += 0.1f;
    EXPECT_LT(RelativeError(DType::kQ4_1, x), 0.020);
  }
}

TEST(QuantizeRowTest, KeepsZeroAndWhatTheFormatHolds) {
  std::vector<float> x(kCols, 0.0f);
  std::vector<uint8_t> blocks(kCols / 32 * 34), again(blocks.size());
  QuantizeRow(DType::kQ8_0, x.data(), kCols, blocks.data());
  DequantizeRow(DType::kQ8_0, blocks.data(), kCols, x.data());
  for (float v : x) EXPECT_EQ(v, 0.0f);
  for (int64_t i = 0; i < kCols; ++i) x[i] = static_cast<float>(i % 255 - 127) * 0.5f;
  for (int64_t i = 0; i < kCols; i += 32) x[i] = -63.5f;
  EXPECT_EQ(RelativeError(DType::kQ8_0, x), 0.0);
  x[5] = NAN;
  x[6] = INFINITY;
  QuantizeRow(DType::kQ4_1, x.data(), kCols, again.data());
  std::vector<float> back(kCols);
  DequantizeRow(DType::kQ4_1, again.data(), kCols, back.data());
  for (float v : back) EXPECT_TRUE(std::isfinite(v));
}

}  // namespace
}  // namespace kvasir::ops
