#include "sim/replay.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "sim/block_holders.h"
#include "sim/report.h"
#include "sim/testing/random_trace.h"

namespace kvasir::sim {
namespace {

ReplayResult Replayed(const Trace& trace, const ReplayOptions& options) {
  const ManualClock clock;
  int64_t last = 0;
  StatusOr<ReplayResult> result =
      Replay(trace, options, clock, [&](int64_t done, int64_t) { EXPECT_EQ(done, ++last); });
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

ReplayOptions Small(RoutePolicy policy) {
  ReplayOptions options{.workers = 4, .blocks = 200};
  options.placement.policy = policy;
  return options;
}

TEST(ReplayTest, ConservesRequestsAndBlocks) {
  const Trace trace = RandomTrace(1, 500);
  for (RoutePolicy policy : router::AllPolicies()) {
    for (int32_t blocks : {1, 20, 200}) {  // in the smallest few fit
      ReplayOptions options = Small(policy);
      options.blocks = blocks;
      options.frontends = 3;
      options.lose_events = 0.3;
      const ReplayResult result = Replayed(trace, options);
      EXPECT_EQ(result.requests, 500);
      EXPECT_EQ(static_cast<int64_t>(result.ttft.size()) + result.refused, 500);
      EXPECT_EQ(result.refused > 0, blocks < 200);
      const int64_t work =
          std::accumulate(result.work_blocks.begin(), result.work_blocks.end(), int64_t{0});
      EXPECT_EQ(work + result.hit_blocks, result.blocks);
      EXPECT_LE(result.hit_tokens, result.tokens);
      EXPECT_EQ(result.decision_time.size(), 500u);
      EXPECT_LE(result.lost_events, result.events);
    }
  }
}

TEST(ReplayTest, TheSameSeedGivesTheSame) {
  const Trace trace = RandomTrace(2, 500);
  ReplayOptions options = Small(RoutePolicy::kLeastTime);
  options.frontends = 2;
  options.lose_events = 0.1;
  const ReplayResult one = Replayed(trace, options);
  const ReplayResult two = Replayed(trace, options);
  EXPECT_EQ(one.ttft, two.ttft);
  EXPECT_EQ(one.work_blocks, two.work_blocks);
  options.placement.seed = 5;
  EXPECT_NE(Replayed(trace, options).work_blocks, one.work_blocks);
}

// One frontend that hears everything at once believes what is.
TEST(ReplayTest, WithNothingLateOrLostABeliefIsAHit) {
  const Trace trace = RandomTrace(3, 500);
  ReplayOptions options = Small(RoutePolicy::kLeastTime);
  options.blocks = 60;
  options.delay = 0;
  ReplayResult result = Replayed(trace, options);
  EXPECT_EQ(result.believed_blocks, result.hit_blocks);
  EXPECT_GT(result.hit_blocks, 0);
  options.lose_events = 1;
  result = Replayed(trace, options);
  EXPECT_GT(result.believed_blocks, result.hit_blocks);  // it never hears of what has gone
  EXPECT_GT(result.hit_blocks, 0);                       // but knows where it sent what
}

TEST(ReplayTest, LosesTheShareOfTheEvents) {
  ReplayOptions options = Small(RoutePolicy::kRoundRobin);
  options.lose_events = 0.3;
  const ReplayResult result = Replayed(RandomTrace(4, 3000), options);
  EXPECT_NEAR(static_cast<double>(result.lost_events) / result.events, 0.3, 0.03);
}

TEST(ReplayTest, LeastTimeHitsMoreAndAnswersSoonerAndKeepsTheBalance) {
  const Trace trace = RandomTrace(4, 3000);
  const ReplayResult time = Replayed(trace, Small(RoutePolicy::kLeastTime));
  EXPECT_LT(MaxOverMean(time.work_blocks), 1.1);
  for (RoutePolicy policy :
       {RoutePolicy::kRoundRobin, RoutePolicy::kLeastLoaded, RoutePolicy::kPowerOfTwo}) {
    const ReplayResult other = Replayed(trace, Small(policy));
    EXPECT_GT(time.hit_blocks, 1.3 * other.hit_blocks);
    EXPECT_LT(Percentile(time.ttft, 50), Percentile(other.ttft, 50));
  }
}

TEST(ReplayTest, OptionsHaveRanges) {
  const Trace trace = RandomTrace(5, 1);
  const auto error = [&](const ReplayOptions& options) {
    return std::string(
        Replay(trace, options, ManualClock(), [](int64_t, int64_t) {}).status().message());
  };
  EXPECT_EQ(error({.workers = 0}), "workers: must be from 1 to 256");
  EXPECT_EQ(error({.workers = 257}), "workers: must be from 1 to 256");
  EXPECT_EQ(error({.blocks = 0}), "blocks: must be at least 1");
  EXPECT_EQ(error({.frontends = 0}), "frontends: must be at least 1");
  EXPECT_EQ(error({.report_interval = 0}),
            "report interval: must be from a millisecond to 1e6 seconds");
  EXPECT_EQ(error({.delay = -1}), "delay: must be from 0 to 1e6 seconds");
  EXPECT_EQ(error({.lose_events = 1.5}), "lost events: must be a share from 0 to 1");
  EXPECT_EQ(error({.placement = {.bound = 0.5}}), "bound: must be at least 1");
}

TEST(ReportTest, CountsRanksAndImbalance) {
  const std::vector<double> sorted = {1, 2, 3, 4};
  EXPECT_EQ(Percentile({}, 50), 0);
  EXPECT_EQ(Percentile(sorted, 0), 1);
  EXPECT_EQ(Percentile(sorted, 50), 2);
  EXPECT_EQ(Percentile(sorted, 51), 3);
  EXPECT_EQ(Percentile(sorted, 100), 4);
  EXPECT_EQ(MaxOverMean(std::vector<int64_t>{1, 3}), 1.5);
  EXPECT_EQ(MaxOverMean(std::vector<int64_t>{0, 0}), 1);
}

TEST(ReportTest, SaysTheSameTwice) {
  const ReplayOptions options = Small(RoutePolicy::kLeastTime);
  const std::vector<ReplayResult> results = {Replayed(RandomTrace(6, 100), options)};
  const nlohmann::json json = ToJson(options, results);
  EXPECT_EQ(json["workers"], 4);
  ASSERT_EQ(json["results"].size(), 1u);
  EXPECT_EQ(json["results"][0]["policy"], "least-time");
  EXPECT_EQ(json["results"][0]["requests"], 100);
  EXPECT_NE(FormatTable(results).find(
                fmt::format("{:.4f}", json["results"][0]["block_hit"].get<double>())),
            std::string::npos);
}

TEST(BlockHoldersTest, MatchesAsSetsDo) {
  std::mt19937 random(1);
  BlockHolders holders;
  std::vector<std::set<uint8_t>> held(3);
  for (int round = 0; round < 5000; ++round) {
    const int32_t worker = static_cast<int32_t>(random() % 3);
    const auto id = static_cast<uint8_t>(random() % 20);
    const Hash128 block{{id}};
    if (random() % 3 != 0) {
      holders.Store(worker, {&block, 1});
      held[worker].insert(id);
    } else {
      holders.Remove(worker, {&block, 1});
      held[worker].erase(id);
    }
    std::vector<Hash128> chain;
    for (int i = 0; i < 5; ++i) chain.push_back(Hash128{{static_cast<uint8_t>(random() % 20)}});
    std::vector<int32_t> blocks(3);
    holders.Match(chain, absl::MakeSpan(blocks));
    for (int32_t w = 0; w < 3; ++w) {
      int32_t expected = 0;
      while (expected < 5 && held[w].contains(chain[expected].bytes[0])) ++expected;
      ASSERT_EQ(blocks[w], expected);
    }
  }
}

}  // namespace
}  // namespace kvasir::sim
