#include "ops/quantize_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/float8.h"

namespace kvasir::ops {
namespace {

constexpr int64_t kCols = 256;

struct Rounding {
  int64_t group;
  int bits;
  bool has_zero;
};

std::vector<float> RoundedBack(const std::vector<float>& x, const Rounding& rounding) {
  IntegerRow row;
  RoundToIntegers(x.data(), kCols, rounding.group, rounding.bits, rounding.has_zero, row);
  std::vector<float> back(kCols);
  for (int64_t i = 0; i < kCols; ++i) {
    const int64_t g = i / rounding.group;
    EXPECT_LT(row.q[i], 1 << rounding.bits);
    back[i] = row.scale[g] * static_cast<float>(row.q[i] - int{row.zero[g]});
  }
  return back;
}

std::vector<float> F8Back(const std::vector<float>& x) {
  std::vector<uint8_t> q(kCols);
  const float scale = RoundToF8(x.data(), kCols, q.data());
  std::vector<float> back(kCols);
  for (int64_t i = 0; i < kCols; ++i) back[i] = scale * ToFloat(Fp8{q[i]});
  return back;
}

// As a share of the norm.
double Error(const std::vector<float>& x, const std::vector<float>& back) {
  double error = 0, norm = 0;
  for (int64_t i = 0; i < kCols; ++i) {
    error += (double{x[i]} - back[i]) * (double{x[i]} - back[i]);
    norm += double{x[i]} * x[i];
  }
  return std::sqrt(error / norm);
}

TEST(QuantizeWeightsTest, ComesCloseInEveryFormat) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (int round = 0; round < 20; ++round) {
    std::vector<float> x(kCols);
    for (float& v : x) v = normal(random);
    EXPECT_LT(Error(x, RoundedBack(x, {32, 8, false})), 0.007);
    EXPECT_LT(Error(x, RoundedBack(x, {kCols, 8, false})), 0.010);
    EXPECT_LT(Error(x, RoundedBack(x, {128, 8, true})), 0.010);
    EXPECT_LT(Error(x, RoundedBack(x, {32, 4, true})), 0.085);
    EXPECT_LT(Error(x, RoundedBack(x, {128, 4, true})), 0.110);
    EXPECT_LT(Error(x, RoundedBack(x, {128, 4, false})), 0.130);
    EXPECT_LT(Error(x, F8Back(x)), 0.035);
    // What lies on one side of zero is what a zero point is for.
    for (float& v : x) v = std::abs(v);
    EXPECT_LT(Error(x, RoundedBack(x, {128, 4, true})), 0.060);
  }
}

TEST(QuantizeWeightsTest, KeepsWhatTheFormatHolds) {
  std::vector<float> x(kCols, 0.0f);
  EXPECT_EQ(RoundedBack(x, {128, 4, true}), x);
  EXPECT_EQ(RoundedBack(x, {kCols, 8, false}), x);
  EXPECT_EQ(F8Back(x), x);
  for (int64_t i = 0; i < kCols; ++i) x[i] = static_cast<float>(i % 255 - 127) * 0.5f;
  for (int64_t i = 0; i < kCols; i += 32) x[i] = -63.5f;
  EXPECT_EQ(RoundedBack(x, {32, 8, false}), x);
  for (int64_t i = 0; i < kCols; ++i) x[i] = static_cast<float>(i % 16 - 3) * 0.25f;
  EXPECT_EQ(RoundedBack(x, {64, 4, true}), x);
  for (int64_t i = 0; i < kCols; ++i) x[i] = ToFloat(Fp8{static_cast<uint8_t>(i % 127)});
  EXPECT_EQ(F8Back(x), x);
}

TEST(QuantizeWeightsTest, WhatIsNotFiniteCountsAsZero) {
  std::vector<float> x(kCols, 1.0f);
  x[5] = NAN;
  x[6] = INFINITY;
  for (const std::vector<float>& back :
       {RoundedBack(x, {128, 4, true}), RoundedBack(x, {kCols, 8, false}), F8Back(x)}) {
    EXPECT_EQ(back[5], 0.0f);
    EXPECT_EQ(back[6], 0.0f);
    EXPECT_NEAR(back[7], 1.0f, 0.01f);
  }
}

}  // namespace
}  // namespace kvasir::ops
