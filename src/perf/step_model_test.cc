#include "perf/step_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace kvasir::perf {
namespace {

// A machine that follows the model's form.
struct Machine {
  double base, token, pair, sequence, context;
  double Time(const StepShape& s) const {
    return base + token * s.prefill_tokens + pair * s.prefill_pairs + sequence * s.decodes +
           context * s.decode_context;
  }
};

StepShape RandomShape(std::mt19937& random, int kind) {
  StepShape shape;
  if (kind != 0) shape.AddPrefill(random() % 4000, 16 + random() % 500);
  if (kind != 1) {
    for (int i = 0, n = 1 + random() % 16; i < n; ++i) shape.AddDecode(1 + random() % 2000);
  }
  return shape;
}

void Train(StepModel& model, const Machine& machine, std::mt19937& random, int steps) {
  std::normal_distribution<double> noise(1.0, 0.03);
  for (int i = 0; i < steps; ++i) {
    const StepShape shape = RandomShape(random, i % 3);
    model.Observe(shape, machine.Time(shape) * noise(random));
  }
}

void ExpectAccurate(const StepModel& model, const Machine& machine, std::mt19937& random) {
  for (int i = 0; i < 100; ++i) {
    const StepShape shape = RandomShape(random, i % 3);
    const double truth = machine.Time(shape);
    EXPECT_NEAR(model.Predict(shape), truth, 0.15 * truth);
  }
}

constexpr Machine kLaptop = {6e-3, 8e-4, 3e-8, 1e-3, 3e-7};
constexpr Machine kGpu = {1.5e-3, 8e-6, 1e-10, 2e-5, 4e-9};

TEST(StepModelTest, LearnsMachinesThreeOrdersApart) {
  for (const Machine& machine : {kLaptop, kGpu}) {
    std::mt19937 random(1);
    StepModel model;
    Train(model, machine, random, 300);
    ExpectAccurate(model, machine, random);
  }
}

TEST(StepModelTest, FollowsAMachineThatSlowsDown) {
  std::mt19937 random(2);
  StepModel model;
  Train(model, kLaptop, random, 300);
  Machine slow = kLaptop;
  slow.base *= 2, slow.token *= 2, slow.pair *= 2, slow.sequence *= 2, slow.context *= 2;
  Train(model, slow, random, 600);
  ExpectAccurate(model, slow, random);
}

TEST(StepModelTest, IsPositiveAndMonotoneFromTheFirstObservation) {
  StepModel model;
  StepShape small, large;
  small.AddPrefill(0, 16);
  large.AddPrefill(0, 512);
  EXPECT_GT(model.Predict(StepShape()), 0);
  for (int i = 0; i < 20; ++i) {
    EXPECT_GT(model.Predict(small), 0);
    EXPECT_GT(model.Predict(large), model.Predict(small));
    model.Observe(small, 0.01);
  }
  EXPECT_NEAR(model.Predict(small), 0.01, 0.001);
}

TEST(StepModelTest, AStallIsNotBelieved) {
  std::mt19937 random(3);
  StepModel model;
  Train(model, kLaptop, random, 300);
  StepShape shape;
  shape.AddDecode(100);
  const double before = model.Predict(shape);
  model.Observe(shape, 10.0);
  model.Observe(shape, std::numeric_limits<double>::quiet_NaN());
  model.Observe(shape, -1.0);
  EXPECT_LT(model.Predict(shape), 1.2 * before);
}

TEST(StepModelTest, LongDecodingDoesNotForgetPrefill) {
  std::mt19937 random(4);
  StepModel model;
  Train(model, kLaptop, random, 300);
  StepShape decode, prefill;
  decode.AddDecode(100);
  prefill.AddPrefill(0, 256);
  for (int i = 0; i < 5000; ++i) model.Observe(decode, kLaptop.Time(decode));
  EXPECT_NEAR(model.Predict(prefill), kLaptop.Time(prefill), 0.15 * kLaptop.Time(prefill));
}

TEST(StepModelTest, ItsCoefficientsPredictTheSame) {
  std::mt19937 random(7);
  StepModel model;
  Train(model, kGpu, random, 300);
  const StepCoefficients coefficients = model.coefficients();
  for (int i = 0; i < 100; ++i) {
    const StepShape shape = RandomShape(random, i % 3);
    EXPECT_NEAR(coefficients.Predict(shape), model.Predict(shape), 1e-9);
  }
  EXPECT_EQ(coefficients.Predict(StepShape()), 0);
}

// Of steps with both phases, each off by up to `noise`.
double OverrunWith(double noise) {
  std::mt19937 random(5);
  StepModel model;
  Train(model, kLaptop, random, 300);
  std::uniform_real_distribution<double> factor(1 - noise, 1 + noise);
  for (int i = 0; i < 1500; ++i) {
    const StepShape shape = RandomShape(random, 2);
    model.Observe(shape, kLaptop.Time(shape) * factor(random));
  }
  return model.overrun();
}

TEST(StepModelTest, KnowsHowFarStepsOverrunTheirPrediction) {
  EXPECT_NEAR(OverrunWith(0.05), 1.07, 0.06);
  EXPECT_NEAR(OverrunWith(0.3), 1.4, 0.15);  // (What is fitted lies below the middle.)
  EXPECT_NEAR(OverrunWith(0.99), 2.0, 0.05);
}

TEST(StepModelTest, AStallIsNoOverrun) {
  std::mt19937 random(6);
  StepModel model;
  Train(model, kLaptop, random, 3000);
  const double before = model.overrun();
  const StepShape shape = RandomShape(random, 2);
  model.Observe(shape, 10 * kLaptop.Time(shape));
  EXPECT_LE(model.overrun(), before);
}

}  // namespace
}  // namespace kvasir::perf
