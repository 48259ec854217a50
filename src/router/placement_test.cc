#include "router/placement.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "router/testing/placement_fixture.h"

namespace kvasir::router {
namespace {

TEST_F(PlacementTest, TellsEachTermOfEachCandidate) {
  cached_[1] = 5;
  workers_[1].queue = {{0, 0.2}};
  workers_[2].decodes = 10;
  const RouteDecision decision = Decide();
  ASSERT_EQ(decision.candidates.size(), 4u);
  const PlacementCost& plain = decision.candidates[0].cost;
  EXPECT_DOUBLE_EQ(plain.prefill, 0.17);
  EXPECT_DOUBLE_EQ(plain.decode, 10 * 0.011);
  EXPECT_EQ(plain.others, 0);
  EXPECT_EQ(plain.balance, 0);
  EXPECT_EQ(decision.candidates[0].computed_tokens, 160);
  const PlacementCost& cached = decision.candidates[1].cost;
  EXPECT_DOUBLE_EQ(cached.queue, 0.2);
  EXPECT_DOUBLE_EQ(cached.prefill, 0.09);
  EXPECT_EQ(decision.candidates[1].cached_blocks, 5);
  EXPECT_EQ(decision.candidates[1].computed_tokens, 80);
  const PlacementCost& beside = decision.candidates[2].cost;
  EXPECT_NEAR(beside.slowed, 0.17 * 0.4 / 0.6, 1e-12);  // 20 ms of 50
  EXPECT_DOUBLE_EQ(beside.decode, 10 * 0.021);
}

TEST_F(PlacementTest, APrefixIsWorthItsPrefillAndNoMore) {
  cached_[2] = 5;
  EXPECT_EQ(Chosen(), 2);
  workers_[2].queue = {{0, 0.079}};
  EXPECT_EQ(Chosen(), 2);
  workers_[2].queue = {{0, 0.081}};
  EXPECT_NE(Chosen(), 2);
}

TEST_F(PlacementTest, ASecondOfPrefillWeighsMoreThanOneOfWaiting) {
  options_.weight = 3;
  cached_[2] = 5;
  workers_[2].queue = {{0, 0.239}};
  EXPECT_EQ(Chosen(), 2);
  EXPECT_DOUBLE_EQ(Decide().chosen().cost.others, 2 * 0.09);
  workers_[2].queue = {{0, 0.241}};
  EXPECT_NE(Chosen(), 2);
}

TEST_F(PlacementTest, AnExcessOfLoadCostsUpToAWholePrefill) {
  options_.bound = 2;
  options_.slack = 0.1;
  for (int i = 0; i < 4; ++i) workers_[i].load = 0.1 * i;  // 0.15 on average, 0.4 at most
  const RouteDecision decision = Decide();
  EXPECT_EQ(decision.worker, 0);
  EXPECT_NEAR(decision.candidates[0].cost.balance, -0.6 * 0.17, 1e-12);
  EXPECT_NEAR(decision.candidates[3].cost.balance, 0.6 * 0.17, 1e-12);
}

TEST_F(PlacementTest, APrefixIsNoReasonToGoWhereManyDecode) {
  cached_[2] = 1;
  workers_[2].decodes = 20;
  EXPECT_NE(Chosen(), 2);
}

TEST_F(PlacementTest, AFullyCachedPromptStillComputesOneToken) {
  cached_[0] = 10;
  EXPECT_DOUBLE_EQ(Decide().candidates[0].cost.prefill, 0.011);
}

TEST_F(PlacementTest, WaitsOnlyForWorkThatIsNotLater) {
  cached_[0] = 5;
  workers_[0].queue = {{0, 0.03}, {5, 10}};
  EXPECT_EQ(Chosen(), 0);
  EXPECT_DOUBLE_EQ(Decide().candidates[0].cost.queue, 0.03);
  request_.priority = 5;
  EXPECT_NE(Chosen(), 0);
}

TEST_F(PlacementTest, FetchesBlocksWhereThatIsSoonerThanComputing) {
  fetchable_ = {0, 10, 0, 0};
  EXPECT_EQ(Decide().candidates[1].fetched_blocks, 0);  // it has no way to
  workers_[1].fetch_seconds_per_block = 0.001;
  const RouteDecision decision = Decide();
  EXPECT_EQ(decision.worker, 1);
  EXPECT_EQ(decision.chosen().fetched_blocks, 10);
  EXPECT_DOUBLE_EQ(decision.chosen().cost.fetch, 0.01);
  EXPECT_DOUBLE_EQ(decision.chosen().cost.prefill, 0.011);
  workers_[1].fetch_seconds_per_block = 0.1;
  EXPECT_EQ(Decide().candidates[1].fetched_blocks, 0);
}

TEST_F(PlacementTest, WithoutRoomADecodeWaits) {
  workers_[0].kv_held = 995;  // 11 blocks are needed
  const RouteDecision decision = Decide();
  EXPECT_GT(decision.candidates[0].cost.decode, decision.candidates[1].cost.decode);
}

TEST_F(PlacementTest, WhoIsOverTheBoundGetsNothing) {
  options_.bound = 1.5;
  options_.slack = 0;
  options_.weight = 6;
  cached_[3] = 10;
  for (int i = 0; i < 4; ++i) workers_[i].load = i == 3 ? 0.21 : 0.1;
  EXPECT_EQ(Decide().candidates[3].eligibility, Eligibility::kOverBound);
  EXPECT_NE(Chosen(), 3);
  options_.slack = 0.05;
  EXPECT_EQ(Chosen(), 3);
  EXPECT_DOUBLE_EQ(Decide().mean_load, 0.1275);
}

TEST_F(PlacementTest, SaysWhyNot) {
  workers_[0].up = false;
  workers_[1].role = Role::kDecode;
  workers_[2].kv_blocks = 10;
  workers_[3].requests = 100;
  const RouteDecision decision = Decide();
  EXPECT_EQ(decision.worker, RouteDecision::kNoWorker);
  EXPECT_EQ(decision.candidates[0].eligibility, Eligibility::kDown);
  EXPECT_EQ(decision.candidates[1].eligibility, Eligibility::kOtherRole);
  EXPECT_EQ(decision.candidates[2].eligibility, Eligibility::kTooSmall);
  EXPECT_EQ(decision.candidates[3].eligibility, Eligibility::kFull);
  request_.part = Role::kDecode;
  EXPECT_EQ(Chosen(), 1);
}

TEST_F(PlacementTest, ASessionKeepsItsWorker) {
  std::set<int32_t> homes;
  for (uint64_t session = 1; session <= 100; ++session) {
    request_.session = session;
    const int32_t home = Chosen();
    homes.insert(home);
    ++request_.number;
    options_.seed += 7;  // another frontend
    workers_[home].queue = {{0, 5}};
    EXPECT_EQ(Chosen(), home);
    EXPECT_TRUE(Decide().by_session);
    workers_[(home + 1) % 4].up = false;  // what happens to others does not concern it
    EXPECT_EQ(Chosen(), home);
    workers_[(home + 1) % 4].up = true;
    workers_[home].up = false;
    EXPECT_NE(Chosen(), home);
    workers_[home].up = true;
  }
  EXPECT_EQ(homes.size(), 4u);
}

TEST_F(PlacementTest, OtherPoliciesDoWhatTheirNamesSay) {
  workers_[1].up = false;
  cached_ = {0, 9, 3, 3};
  workers_[0].queue = {{0, 0.1}};
  workers_[3].queue = {{0, 0.2}};
  workers_[2].load = 0.5;
  options_.policy = RoutePolicy::kRoundRobin;
  std::vector<int32_t> turns;
  for (; request_.number < 4; ++request_.number) turns.push_back(Chosen());
  EXPECT_EQ(turns, (std::vector<int32_t>{0, 2, 3, 0}));
  options_.policy = RoutePolicy::kLeastLoaded;
  EXPECT_EQ(Chosen(), 2);
  options_.policy = RoutePolicy::kPrefixOnly;
  EXPECT_EQ(Chosen(), 3);  // of two equal prefixes the one that was given less of late
  options_.policy = RoutePolicy::kPowerOfTwo;
  std::set<int32_t> drawn;
  for (; request_.number < 40; ++request_.number) drawn.insert(Chosen());
  EXPECT_EQ(drawn, (std::set<int32_t>{0, 2}));  // 3 has more to do than either
}

TEST(PolicyNames, AreReadAsTheyAreWritten) {
  for (RoutePolicy policy : AllPolicies()) EXPECT_EQ(*ParsePolicy(PolicyName(policy)), policy);
  EXPECT_EQ(ParsePolicy("fastest").status().message(),
            "'fastest' is no policy; there are least-time, round-robin, least-loaded, "
            "power-of-two, prefix-only");
}

TEST(PlacementOptionsTest, HaveRanges) {
  EXPECT_TRUE(CheckOptions({}).ok());
  EXPECT_FALSE(CheckOptions({.weight = 0.5}).ok());
  EXPECT_FALSE(CheckOptions({.bound = 0.99}).ok());
  EXPECT_FALSE(CheckOptions({.slack = -1}).ok());
  EXPECT_FALSE(CheckOptions({.near = std::numeric_limits<double>::quiet_NaN()}).ok());
}

}  // namespace
}  // namespace kvasir::router
