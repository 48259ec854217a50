// Kernels of single rows: gates, caps and the choice of experts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "ops/testing/families.h"

namespace kvasir::ops {
namespace {

using testing::ElementsAre;

constexpr int64_t kCols = 64;

std::vector<float> RandomRow(std::mt19937& random, float width) {
  std::normal_distribution<float> normal(0.0f, width);
  std::vector<float> out(kCols);
  for (float& x : out) x = normal(random);
  return out;
}

double Gate(const GateArgs& args, double gate, double up) {
  switch (args.op) {
    case GateOp::kSilu:
      return gate / (1 + std::exp(-gate)) * up;
    case GateOp::kGelu:
      return 0.5 * gate *
             (1 +
              std::tanh(std::sqrt(2 / std::acos(-1.0)) * (gate + 0.044715 * gate * gate * gate))) *
             up;
    case GateOp::kClamped: {
      const double g = std::min(gate, double{args.limit});
      const double u = std::clamp(up, -double{args.limit}, double{args.limit});
      return g / (1 + std::exp(-args.alpha * g)) * (u + 1);
    }
  }
  return 0;
}

TEST(GateTest, MatchesItsDefinitionInEveryFamily) {
  std::mt19937 random(5);
  const std::vector<float> gate = RandomRow(random, 4.0f), up = RandomRow(random, 4.0f);
  for (const GateArgs& args : {GateArgs{GateOp::kSilu}, GateArgs{GateOp::kGelu},
                               GateArgs{GateOp::kClamped, 1.702f, 3.0f}}) {
    std::vector<float> first;
    for (const CpuKernels* kernels : Families()) {
      std::vector<float> out(kCols);
      kernels->gated(args, gate.data(), up.data(), kCols, out.data());
      for (int64_t i = 0; i < kCols; ++i) {
        EXPECT_NEAR(out[i], Gate(args, gate[i], up[i]), 1e-5 * (1 + std::abs(out[i])));
      }
      if (first.empty()) first = out;
      EXPECT_EQ(out, first) << kernels->name;
    }
  }
}

TEST(SoftcapTest, MatchesTanhForAnyNumberOfColumns) {
  std::mt19937 random(5);
  for (const int64_t cols : {1, 15, 16, 17, 64}) {
    const std::vector<float> x = RandomRow(random, 40.0f);
    std::vector<float> first;
    for (const CpuKernels* kernels : Families()) {
      std::vector<float> out = x;
      kernels->softcap(30.0f, cols, out.data());
      for (int64_t i = 0; i < cols; ++i) EXPECT_NEAR(out[i], 30 * std::tanh(x[i] / 30), 2e-5);
      for (int64_t i = cols; i < kCols; ++i) EXPECT_EQ(out[i], x[i]);
      if (first.empty()) first = out;
      EXPECT_EQ(out, first) << kernels->name;
    }
  }
}

// The experts and weights chosen, which are the same in every family.
std::vector<float> Route(RouteArgs args, const std::vector<float>& scores) {
  std::vector<float> first;
  for (const CpuKernels* kernels : Families()) {
    std::vector<float> out(2 * args.used), scratch(3 * scores.size());
    args.experts = static_cast<int32_t>(scores.size());
    args.scores = scores.data();
    args.scratch = scratch.data();
    args.out = out.data();
    kernels->route(args);
    if (first.empty()) first = out;
    EXPECT_EQ(out, first) << kernels->name;
  }
  return first;
}

TEST(RouteTest, TakesTheBestAndWeighsThemBySoftmax) {
  const std::vector<float> scores = {0.0f, 2.0f, 1.0f, -1.0f};
  const double total = std::exp(2.0) + std::exp(1.0);
  std::vector<float> out = Route({.used = 2}, scores);
  EXPECT_THAT(out, ElementsAre(1, testing::FloatNear(std::exp(2.0) / total, 1e-6), 2,
                               testing::FloatNear(std::exp(1.0) / total, 1e-6)));
  const double all = total + 1 + std::exp(-1.0);
  out = Route({.used = 2, .normalize = false}, scores);
  EXPECT_NEAR(out[1], std::exp(2.0) / all, 1e-6);
  EXPECT_NEAR(out[3], std::exp(1.0) / all, 1e-6);
}

TEST(RouteTest, OfEqualScoresTheLowerExpertComesFirst) {
  const std::vector<float> out = Route({.used = 3}, {1.0f, 2.0f, 2.0f, 1.0f});
  EXPECT_THAT((std::vector<float>{out[0], out[2], out[4]}), ElementsAre(1, 2, 0));
}

TEST(RouteTest, ABiasChangesTheChoiceAndNotTheWeight) {
  const std::vector<float> bias = {0.0f, 0.0f, 5.0f, 0.0f};
  const std::vector<float> out =
      Route({.used = 1, .sigmoid = true, .normalize = false, .scale = 2.5f, .bias = bias.data()},
            {3.0f, 1.0f, -2.0f, 0.0f});
  EXPECT_EQ(out[0], 2);
  EXPECT_NEAR(out[1], 2.5 / (1 + std::exp(2.0)), 1e-6);
}

// Groups of three; the sum of the two best of the second is the largest.
TEST(RouteTest, ChoosesWithinTheBestGroups) {
  const std::vector<float> scores = {4.0f, -9.0f, -9.0f, 2.0f, 2.5f, -9.0f};
  const std::vector<float> out =
      Route({.used = 2, .groups = 2, .groups_used = 1, .sigmoid = true}, scores);
  EXPECT_THAT((std::vector<float>{out[0], out[2]}), ElementsAre(4, 3));
}

}  // namespace
}  // namespace kvasir::ops
