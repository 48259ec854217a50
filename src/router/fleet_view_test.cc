#include "router/fleet_view.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kvasir::router {
namespace {

using Queue = std::vector<QueuedWork>;

std::vector<std::pair<int32_t, double>> Pairs(const Queue& queue) {
  std::vector<std::pair<int32_t, double>> pairs;
  for (const QueuedWork& work : queue) pairs.emplace_back(work.priority, work.seconds);
  return pairs;
}

TEST(QueueTest, KeepsPrioritiesInOrderAndDrainsTheSoonestFirst) {
  Queue queue;
  Enqueue(&queue, {1, 2.0});
  Enqueue(&queue, {-1, 1.0});
  Enqueue(&queue, {1, 0.5});
  Enqueue(&queue, {0, 4.0});
  using Expected = std::vector<std::pair<int32_t, double>>;
  EXPECT_EQ(Pairs(queue), (Expected{{-1, 1.0}, {0, 4.0}, {1, 2.5}}));
  Drain(&queue, 2.0);
  EXPECT_EQ(Pairs(queue), (Expected{{0, 3.0}, {1, 2.5}}));
  Drain(&queue, 5.0);
  EXPECT_EQ(Pairs(queue), (Expected{{1, 0.5}}));
  Drain(&queue, 100);
  EXPECT_TRUE(queue.empty());
}

class FleetViewTest : public testing::Test {
 protected:
  FleetViewTest() {
    for (int32_t w = 0; w < 2; ++w) view_.Report(w, Idle(), 0, At(0));
  }

  static TimePoint At(double seconds) { return TimePoint(FromSeconds(seconds)); }

  static WorkerState Idle() {
    WorkerState state;
    state.up = true;
    state.times.prefill = {0, 0.01, 0};
    state.kv_blocks = 100;
    return state;
  }

  // A prompt of 100 tokens: a second of prefill, 7 blocks.
  int64_t Place(int32_t worker, double now, int32_t priority = 0) {
    const std::vector<int32_t> cached(2, 0);
    const PlacementRequest request{.prompt_tokens = 100,
                                   .block_tokens = 16,
                                   .expected_output = 10,
                                   .priority = priority,
                                   .cached = cached};
    RouteDecision decision = router::Place(view_.At(At(now)), request, {});
    decision.worker = worker;
    return view_.Placed(request, decision, At(now));
  }

  FleetView view_{2};
};

TEST_F(FleetViewTest, KnowsItsOwnPlacementsAtOnce) {
  EXPECT_EQ(Place(0, 0), 1);
  EXPECT_EQ(Place(0, 0), 2);
  EXPECT_EQ(Place(1, 0), 1);
  const WorkerState& state = view_.At(At(0))[0];
  EXPECT_DOUBLE_EQ(state.queue.at(0).seconds, 2);
  EXPECT_EQ(state.requests, 2);
  EXPECT_EQ(state.kv_held, 14);
  EXPECT_DOUBLE_EQ(state.load, 2 / kLoadWindow);
}

TEST_F(FleetViewTest, TimeDrainsQueuesAndForgetsLoads) {
  Place(0, 0);
  EXPECT_NEAR(view_.At(At(0.25))[0].queue.at(0).seconds, 0.75, 1e-9);
  EXPECT_TRUE(view_.At(At(1.5))[0].queue.empty());
  EXPECT_NEAR(view_.At(At(kLoadWindow))[0].load, std::exp(-1.0) / kLoadWindow, 1e-12);
}

TEST_F(FleetViewTest, AReportReplacesWhatItIncludes) {
  Place(0, 0);
  const int64_t second = Place(0, 0);
  WorkerState report = Idle();
  report.requests = 5;
  view_.Report(0, report, second - 1, At(0.1));  // the second was still under way
  EXPECT_EQ(view_.At(At(0.1))[0].requests, 6);
  EXPECT_DOUBLE_EQ(view_.At(At(0.1))[0].queue.at(0).seconds, 1);
  view_.Report(0, report, second, At(0.2));
  EXPECT_EQ(view_.At(At(0.2))[0].requests, 5);
  EXPECT_TRUE(view_.At(At(0.2))[0].queue.empty());
}

TEST_F(FleetViewTest, ALostWorkerGetsNothingUntilItReports) {
  Place(0, 0);
  view_.Lost(0);
  EXPECT_FALSE(view_.At(At(1))[0].up);
  view_.Report(0, Idle(), 0, At(2));
  EXPECT_TRUE(view_.At(At(2))[0].up);
  EXPECT_EQ(view_.At(At(2))[0].requests, 0);
}

TEST_F(FleetViewTest, WhoComesLateHasHadTheMeanLoad) {
  FleetView view(3);
  WorkerState busy = Idle();
  busy.load = 0.4;
  view.Report(0, busy, 0, At(0));
  busy.load = 0.2;
  view.Report(1, busy, 0, At(0));
  EXPECT_NEAR(view.At(At(0))[1].load, 0.4, 1e-9);
  view.Report(2, Idle(), 0, At(1));
  EXPECT_NEAR(view.At(At(1))[2].load, 0.4, 1e-2);
  WorkerState later = Idle();
  later.load = 0.1;
  view.Report(2, later, 0, At(1 + kLoadWindow));
  EXPECT_NEAR(view.At(At(1 + kLoadWindow))[2].load, 0.1 + 0.4 / std::exp(1.0), 1e-2);
}

// Requests that share nothing, at half of what the workers can do.
TEST_F(FleetViewTest, ANewWorkerIsNotFlooded) {
  FleetView view(5);
  WorkerState busy = Idle();
  busy.load = 0.5;
  for (int32_t w = 0; w < 4; ++w) view.Report(w, busy, 0, At(0));
  view.Report(4, Idle(), 0, At(0));
  const std::vector<int32_t> cached(5, 0);
  int on_new = 0;
  for (int i = 0; i < 100; ++i) {
    const PlacementRequest request{
        .number = i, .prompt_tokens = 100, .block_tokens = 16, .cached = cached};
    const TimePoint now = At(0.4 * i);
    const RouteDecision decision = router::Place(view.At(now), request, {});
    view.Placed(request, decision, now);
    on_new += decision.worker == 4;
  }
  EXPECT_GT(on_new, 10);
  EXPECT_LT(on_new, 35);
}

TEST_F(FleetViewTest, PrioritiesQueueApart) {
  Place(0, 0, 3);
  Place(0, 0, -3);
  const WorkerState& state = view_.At(At(0))[0];
  ASSERT_EQ(state.queue.size(), 2u);
  EXPECT_EQ(state.queue[0].priority, -3);
}

}  // namespace
}  // namespace kvasir::router
