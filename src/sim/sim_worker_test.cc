#include "sim/sim_worker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>

#include "sim/testing/random_trace.h"

namespace kvasir::sim {
namespace {

// 1 ms a token; decodes at 10 ms a step.
constexpr perf::StepCoefficients kTimes = {.decode = {0.01, 0, 0}, .prefill = {0, 0.001, 0}};

TimePoint At(double seconds) { return TimePoint(FromSeconds(seconds)); }

Hash128 Block(uint8_t id) { return Hash128{{id}}; }

TEST(SimWorkerTest, ServesPromptsOneAfterTheOther) {
  SimWorker worker(10, 100, kTimes);
  const TraceRequest request{
      .input_tokens = 200, .output_tokens = 100, .blocks = {Block(1), Block(2)}};
  const SimWorker::Served first = worker.Serve(request, At(0));
  EXPECT_EQ(first.cached_blocks, 0);
  EXPECT_NEAR(first.ttft, 0.2, 1e-6);
  const SimWorker::Served second = worker.Serve(request, At(0.1));
  EXPECT_EQ(second.cached_blocks, 2);
  EXPECT_NEAR(second.ttft, 0.1 + 0.001, 1e-6);  // the queue and its last token

  EXPECT_EQ(worker.State(At(0.15)).requests, 2);
  EXPECT_EQ(worker.State(At(0.15)).decodes, 0);
  EXPECT_NEAR(worker.State(At(0.15)).queue.at(0).seconds, 0.051, 1e-6);
  const router::WorkerState decoding = worker.State(At(0.5));
  EXPECT_EQ(decoding.decodes, 2);
  EXPECT_EQ(decoding.decode_context, 400);
  EXPECT_TRUE(decoding.queue.empty());
  EXPECT_EQ(worker.State(At(2)).requests, 0);
  EXPECT_EQ(worker.State(At(2)).kv_held, 0);
}

TEST(SimWorkerTest, TellsWhatItsCacheHolds) {
  SimWorker worker(2, 100, kTimes);
  worker.Serve({.input_tokens = 200, .blocks = {Block(1), Block(2)}}, At(0));
  worker.Serve({.input_tokens = 200, .blocks = {Block(1), Block(3)}}, At(1));
  EXPECT_EQ(worker.TakeEvents().size(), 2u);
  worker.Serve({.input_tokens = 100, .blocks = {Block(4)}}, At(2));
  const std::vector<BlockEvent> events = worker.TakeEvents();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_FALSE(events[0].stored);
  EXPECT_EQ(events[0].blocks, (std::vector<Hash128>{Block(3)}));
  EXPECT_TRUE(events[1].stored);
  EXPECT_EQ(events[1].blocks, (std::vector<Hash128>{Block(4)}));
  EXPECT_TRUE(worker.TakeEvents().empty());
}

// The rules that hits of traces are counted by: blocks are touched from the last to the first, and
// the least recently touched go after a request's have come.
class PlainCache {
 public:
  explicit PlainCache(size_t capacity) : capacity_(capacity) {}

  int32_t Serve(const std::vector<Hash128>& blocks) {
    const auto absent = std::find_if(blocks.begin(), blocks.end(), [&](const Hash128& block) {
      return std::find(order_.begin(), order_.end(), block) == order_.end();
    });
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
      order_.remove(*block);
      order_.push_back(*block);
    }
    while (order_.size() > capacity_) order_.pop_front();
    return static_cast<int32_t>(absent - blocks.begin());
  }

 private:
  const size_t capacity_;
  std::list<Hash128> order_;
};

TEST(SimWorkerTest, HitsAsThePlainRulesSay) {
  for (int32_t capacity : {1, 7, 50, 100, 1000}) {
    SimWorker worker(capacity, 512, kTimes);
    PlainCache plain(capacity);
    for (const TraceRequest& request : RandomTrace(capacity, 300).requests) {
      ASSERT_EQ(worker.Serve(request, request.arrival).cached_blocks, plain.Serve(request.blocks));
      ASSERT_LE(worker.cached_blocks(), capacity);
    }
    EXPECT_TRUE(worker.CheckIntegrity().ok()) << worker.CheckIntegrity();
  }
}

}  // namespace
}  // namespace kvasir::sim
