// What holds of every decision, whatever the state.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "router/testing/placement_fixture.h"

namespace kvasir::router {
namespace {

// Random states.
class PlacementProperties : public PlacementTest {
 protected:
  PlacementProperties() : PlacementTest(9) {}

  double Uniform() { return std::uniform_real_distribution<double>(0, 1)(random_); }
  int32_t Below(int32_t n) { return static_cast<int32_t>(random_() % n); }

  void Shuffle() {
    for (size_t i = 0; i < workers_.size(); ++i) {
      WorkerState& worker = workers_[i];
      worker.up = Below(5) != 0;
      worker.role = static_cast<Role>(Below(4) == 0 ? Below(3) : 0);
      worker.queue.clear();
      if (Below(2) == 0) worker.queue = {{-1, Uniform()}, {2, Uniform()}};
      worker.load = Below(3) == 0 ? 0 : Uniform();
      worker.requests = Below(120);
      worker.decodes = Below(20);
      worker.kv_blocks = 8 + Below(100);
      worker.kv_held = Below(worker.kv_blocks + 1);
      cached_[i] = Below(11);
    }
    ++request_.number;
    request_.priority = Below(5) - 2;
    request_.session = Below(3) == 0 ? random_() : 0;
    request_.part = static_cast<Role>(Below(3));
    options_ = {.policy = AllPolicies()[Below(5)],
                .seed = random_(),
                .weight = 1 + 5 * Uniform(),
                .bound = 1 + Uniform(),
                .slack = Below(2) * 0.1 * Uniform(),
                .near = Below(2) * Uniform()};
  }

  bool CouldTake(int32_t i) const {
    const WorkerState& worker = workers_[i];
    return worker.up && (worker.role == Role::kBoth || worker.role == request_.part) &&
           worker.requests < worker.max_requests && worker.kv_blocks >= 11;
  }

  std::mt19937_64 random_{1};
};

TEST_F(PlacementProperties, OnlyWhoCanTakeItGetsItAndSomeoneDoes) {
  for (int round = 0; round < 5000; ++round) {
    Shuffle();
    const int32_t chosen = Chosen();
    bool any = false;
    for (int32_t i = 0; i < 9; ++i) any |= CouldTake(i);
    ASSERT_EQ(chosen != RouteDecision::kNoWorker, any);
    ASSERT_TRUE(!any || CouldTake(chosen));
  }
}

TEST_F(PlacementProperties, TheBoundHolds) {
  for (int round = 0; round < 5000; ++round) {
    Shuffle();
    options_.policy = RoutePolicy::kLeastTime;
    const int32_t chosen = Chosen();
    if (chosen == RouteDecision::kNoWorker) continue;
    double sum = 0, least = 1e9;
    int32_t count = 0;
    for (int32_t i = 0; i < 9; ++i) {
      if (!CouldTake(i)) continue;
      sum += workers_[i].load;
      least = std::min(least, workers_[i].load);
      ++count;
    }
    ASSERT_LE(workers_[chosen].load,
              std::max(least, options_.bound * sum / count + options_.slack) + 1e-12);
  }
}

TEST_F(PlacementProperties, EqualStatesGiveEqualDecisions) {
  for (int round = 0; round < 1000; ++round) {
    Shuffle();
    const RouteDecision one = Decide();
    const RouteDecision two = Decide();
    ASSERT_EQ(one.worker, two.worker);
    for (size_t i = 0; i < one.candidates.size(); ++i) {
      ASSERT_EQ(one.candidates[i].cost.score(), two.candidates[i].cost.score());
      ASSERT_EQ(one.candidates[i].eligibility, two.candidates[i].eligibility);
    }
  }
}

TEST_F(PlacementProperties, LeastTimeIsNearTheLeast) {
  for (int round = 0; round < 5000; ++round) {
    Shuffle();
    options_.policy = RoutePolicy::kLeastTime;
    request_.session = 0;
    const RouteDecision decision = Decide();
    if (decision.worker == RouteDecision::kNoWorker) continue;
    double best = 1e9, ttft = 0;
    for (const RouteCandidate& c : decision.candidates) {
      if (c.eligibility != Eligibility::kEligible || c.cost.score() >= best) continue;
      best = c.cost.score();
      ttft = c.cost.ttft();
    }
    ASSERT_LE(decision.chosen().cost.score(), best + options_.near * ttft + 1e-12);
  }
}

class ManyWorkers : public PlacementTest {
 protected:
  ManyWorkers() : PlacementTest(64) {}
};

// Two frontends that see the same: chance would make them choose alike once in 64.
TEST_F(ManyWorkers, FrontendsDoNotHerd) {
  int alike = 0;
  for (; request_.number < 1000; ++request_.number) {
    options_.seed = 1;
    const int32_t one = Chosen();
    options_.seed = 2;
    alike += Chosen() == one;
  }
  EXPECT_LT(alike, 40);
}

}  // namespace
}  // namespace kvasir::router
