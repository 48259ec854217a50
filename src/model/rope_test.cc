#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kvasir::model {
namespace {

constexpr int32_t kTrained = 4096;

RopeConfig Plain() { return {.theta = 10000.0f, .width = 64, .original_context = kTrained}; }

double PlainFrequency(int i) { return std::pow(10000.0, -i / 32.0); }

TEST(RopeTest, PlainFrequenciesAreAGeometricSeries) {
  const RopeTable table = MakeRopeTable(Plain(), 1024, kTrained);
  ASSERT_EQ(table.frequencies.size(), 32u);
  EXPECT_EQ(table.scale, 1.0f);
  for (int i = 0; i < 32; ++i) EXPECT_NEAR(table.frequencies[i], PlainFrequency(i), 1e-12);
}

TEST(RopeTest, LinearDividesEveryFrequency) {
  RopeConfig rope = Plain();
  rope.scaling = RopeScaling::kLinear;
  rope.factor = 4.0f;
  const RopeTable table = MakeRopeTable(rope, 1024, kTrained);
  for (int i = 0; i < 32; ++i) EXPECT_NEAR(table.frequencies[i], PlainFrequency(i) / 4, 1e-12);
}

// Beyond the trained context the base grows so that the slowest frequency is divided by
// factor * context / trained - (factor - 1), and the fastest stays.
TEST(RopeTest, DynamicStretchesTheSlowestByTheContext) {
  RopeConfig rope = Plain();
  rope.scaling = RopeScaling::kDynamic;
  rope.factor = 2.0f;
  RopeTable table = MakeRopeTable(rope, kTrained, kTrained);
  EXPECT_NEAR(table.frequencies[31], PlainFrequency(31), 1e-12);
  table = MakeRopeTable(rope, 4 * kTrained, kTrained);
  EXPECT_EQ(table.frequencies[0], 1.0);
  EXPECT_NEAR(table.frequencies[31], PlainFrequency(31) / 7.0, 1e-9);
}

// The definition of the model's own publication.
TEST(RopeTest, Llama3DividesLongWavelengths) {
  RopeConfig rope = Plain();
  rope.theta = 500000.0f;
  rope.scaling = RopeScaling::kLlama3;
  rope.factor = 8.0f;
  rope.original_context = 8192;
  const RopeTable table = MakeRopeTable(rope, 1024, 131072);
  int between = 0;
  for (int i = 0; i < 32; ++i) {
    const double plain = std::pow(500000.0, -i / 32.0);
    const double turns = 8192 * plain / (2 * std::acos(-1.0));  // in the original context
    const double kept = std::fmin(std::fmax((turns - 1.0) / (4.0 - 1.0), 0.0), 1.0);
    EXPECT_NEAR(table.frequencies[i], plain * (kept + (1 - kept) / 8), 1e-9 * plain) << i;
    between += kept > 0 && kept < 1;
  }
  EXPECT_GT(between, 0);
}

// Dimensions that turn at least 32 times in the original context stay, those that turn less than
// once are divided; between them the weight of the two is linear in the dimension.
TEST(RopeTest, YarnInterpolatesBetweenItsBounds) {
  RopeConfig rope = Plain();
  rope.scaling = RopeScaling::kYarn;
  rope.factor = 16.0f;
  rope.truncate = false;
  const RopeTable table = MakeRopeTable(rope, 1024, 16 * kTrained);
  const auto dimension = [](double turns) {
    return 32 * std::log(kTrained / (turns * 2 * std::acos(-1.0))) / std::log(10000.0);
  };
  const double low = dimension(32), high = dimension(1);
  for (int i = 0; i < 32; ++i) {
    const double divided = std::fmin(std::fmax((i - low) / (high - low), 0.0), 1.0);
    const double want = PlainFrequency(i) * (divided / 16 + 1 - divided);
    EXPECT_NEAR(table.frequencies[i], want, 1e-9 * want) << i;
  }
  EXPECT_NEAR(table.scale, 0.1 * std::log(16.0) + 1.0, 1e-6);
}

TEST(RopeTest, YarnOfDeepSeekMovesItsMagnitudeIntoTheScores) {
  RopeConfig rope = Plain();
  rope.scaling = RopeScaling::kYarn;
  rope.factor = 40.0f;
  EXPECT_EQ(LatentScoreFactor(rope), 1.0f);
  rope.mscale = rope.mscale_all = 1.0f;
  EXPECT_EQ(MakeRopeTable(rope, 1024, kTrained).scale, 1.0f);
  const double magnitude = 0.1 * std::log(40.0) + 1.0;
  EXPECT_NEAR(LatentScoreFactor(rope), magnitude * magnitude, 1e-5);
}

TEST(RopeTest, LongRopeTakesItsFactorsByTheContextServed) {
  RopeConfig rope = Plain();
  rope.scaling = RopeScaling::kLongRope;
  rope.factors.assign(32, 1.5f);
  rope.long_factors.assign(32, 3.0f);
  const RopeTable within = MakeRopeTable(rope, kTrained, 32 * kTrained);
  const RopeTable beyond = MakeRopeTable(rope, kTrained + 1, 32 * kTrained);
  for (int i = 0; i < 32; ++i) {
    EXPECT_NEAR(within.frequencies[i], PlainFrequency(i) / 1.5, 1e-9);
    EXPECT_NEAR(beyond.frequencies[i], PlainFrequency(i) / 3.0, 1e-9);
  }
  EXPECT_NEAR(beyond.scale, std::sqrt(1.0 + std::log(32.0) / std::log(4096.0)), 1e-6);
  rope.attention_factor = 1.25f;
  EXPECT_EQ(MakeRopeTable(rope, 1024, 32 * kTrained).scale, 1.25f);
}

}  // namespace
}  // namespace kvasir::model
