#include "cluster/fleet.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "cluster/testing/fake_worker.h"

namespace kvasir::cluster {
namespace {

using testing::AnswerOf;
using testing::FakeWorker;
using testing::KeepingSink;
using testing::MakeRequest;

class FleetTest : public ::testing::Test {
 protected:
  Fleet& Start(int workers, Duration patience = std::chrono::seconds(20)) {
    std::vector<Fleet::Member> members;
    for (int i = 0; i < workers; ++i) {
      workers_.push_back(std::make_unique<FakeWorker>());
      members.push_back({"w" + std::to_string(i), workers_.back().get()});
    }
    fleet_ = std::make_unique<Fleet>(std::move(members), testing::FakeModel(), patience);
    return *fleet_;
  }

  // Steps all workers until the sink has all its events.
  void Drive(const KeepingSink& sink) {
    while (!sink.done()) {
      for (auto& worker : workers_) worker->Step();
      std::this_thread::yield();
    }
  }

  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::unique_ptr<Fleet> fleet_;
};

TEST_F(FleetTest, SpreadsRequestsOverItsMembers) {
  Fleet& fleet = Start(3);
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 6; ++i) {
    sinks.push_back(std::make_shared<KeepingSink>(1));
    ASSERT_TRUE(fleet.Submit(MakeRequest(std::to_string(i), i, 1, 4), sinks.back()).ok());
  }
  for (auto& worker : workers_) EXPECT_EQ(worker->submitted(), 2);
  for (int i = 0; i < 6; ++i) {
    Drive(*sinks[i]);
    EXPECT_EQ(sinks[i]->tokens(0), AnswerOf(*MakeRequest("", i, 1, 4), 0));
  }
}

TEST_F(FleetTest, ALostStreamGoesOnElsewhereWithTheSameTokens) {
  Fleet& fleet = Start(2);
  const auto request = MakeRequest("a", 7, 2, 10);
  const auto sink = std::make_shared<KeepingSink>(2);
  ASSERT_TRUE(fleet.Submit(request, sink).ok());
  workers_[0]->Step();
  workers_[0]->Step();
  workers_[0]->Kill();
  workers_[1]->AwaitRequests(1);
  Drive(*sink);
  for (int c = 0; c < 2; ++c) EXPECT_EQ(sink->tokens(c), AnswerOf(*request, c));
  EXPECT_EQ(sink->finish(0), FinishReason::kLength);
  EXPECT_EQ(sink->after_end(), 0);
}

TEST_F(FleetTest, WaitsForAWorkerThatComesBack) {
  Fleet& fleet = Start(1);
  const auto request = MakeRequest("a", 7, 1, 5);
  const auto sink = std::make_shared<KeepingSink>(1);
  ASSERT_TRUE(fleet.Submit(request, sink).ok());
  workers_[0]->Step();
  workers_[0]->Kill();
  EXPECT_FALSE(fleet.Healthy());
  EXPECT_TRUE(absl::IsUnavailable(fleet.Submit(MakeRequest("b", 7, 1, 5), sink)));
  workers_[0]->Revive();
  Drive(*sink);
  EXPECT_EQ(sink->tokens(0), AnswerOf(*request, 0));
}

TEST_F(FleetTest, GivesUpWhenNoOtherComesInTime) {
  Fleet& fleet = Start(1, std::chrono::milliseconds(1));
  const auto sink = std::make_shared<KeepingSink>(2);
  ASSERT_TRUE(fleet.Submit(MakeRequest("a", 7, 2, 5), sink).ok());
  workers_[0]->Kill();
  sink->AwaitEnd();
  EXPECT_TRUE(absl::IsUnavailable(sink->error()));
}

TEST_F(FleetTest, ARequestThatAllDieOfIsGivenUp) {
  Fleet& fleet = Start(1);
  const auto sink = std::make_shared<KeepingSink>(1);
  ASSERT_TRUE(fleet.Submit(MakeRequest("a", 7, 1, 5), sink).ok());
  while (!sink->done()) {
    workers_[0]->Kill();
    workers_[0]->Revive();
    std::this_thread::yield();
  }
  EXPECT_TRUE(absl::IsUnavailable(sink->error()));
  EXPECT_EQ(workers_[0]->submitted(), 5);
}

TEST_F(FleetTest, WhatIsCancelledWhileItWaitsEndsAsCancelled) {
  Fleet& fleet = Start(1);
  const auto sink = std::make_shared<KeepingSink>(1);
  ASSERT_TRUE(fleet.Submit(MakeRequest("a", 7, 1, 5), sink).ok());
  workers_[0]->Kill();
  fleet.Cancel("a", std::nullopt);
  sink->AwaitEnd();
  EXPECT_EQ(sink->finish(0), FinishReason::kCancelled);
}

TEST_F(FleetTest, AChoiceThatIsCancelledStaysSoElsewhere) {
  Fleet& fleet = Start(2);
  const auto request = MakeRequest("a", 7, 2, 6);
  const auto sink = std::make_shared<KeepingSink>(2);
  ASSERT_TRUE(fleet.Submit(request, sink).ok());
  workers_[0]->Step();
  fleet.Cancel("a", 1);
  workers_[0]->Kill();
  workers_[1]->AwaitRequests(1);
  Drive(*sink);
  EXPECT_EQ(sink->tokens(0), AnswerOf(*request, 0));
  EXPECT_EQ(sink->finish(1), FinishReason::kCancelled);
  EXPECT_EQ(sink->tokens(1).size(), 1u);
}

TEST_F(FleetTest, HandsARefusalOn) {
  Fleet& fleet = Start(2);
  for (auto& worker : workers_) worker->refusal = absl::ResourceExhaustedError("full");
  const auto sink = std::make_shared<KeepingSink>(1);
  EXPECT_TRUE(absl::IsResourceExhausted(fleet.Submit(MakeRequest("a", 7, 1, 5), sink)));
  for (auto& worker : workers_) worker->refusal = absl::OkStatus();
  EXPECT_TRUE(fleet.Submit(MakeRequest("a", 7, 1, 5), sink).ok());
}

TEST_F(FleetTest, AMemberOfOtherNumericsGetsNothing) {
  Fleet& fleet = Start(2);
  workers_[0]->model.numerics_id = "others";
  for (int i = 0; i < 4; ++i) {
    const auto sink = std::make_shared<KeepingSink>(1);
    ASSERT_TRUE(fleet.Submit(MakeRequest(std::to_string(i), 7, 1, 2), sink).ok());
  }
  EXPECT_EQ(workers_[0]->submitted(), 0);
  EXPECT_EQ(workers_[1]->submitted(), 4);
}

// Whoever dies and whenever: each request gets all its tokens, once.
TEST_F(FleetTest, AnyDeathsLoseNothing) {
  std::mt19937 random(3);
  Fleet& fleet = Start(3);
  std::vector<std::shared_ptr<Request>> requests;
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  const auto submit = [&] {
    const int32_t n = 1 + static_cast<int32_t>(random() % 3);
    auto request = MakeRequest(std::to_string(requests.size()), static_cast<TokenId>(random() % 99),
                               n, 1 + static_cast<int32_t>(random() % 40));
    auto sink = std::make_shared<KeepingSink>(n);
    if (!fleet.Submit(request, sink).ok()) return;
    requests.push_back(std::move(request));
    sinks.push_back(std::move(sink));
  };
  for (int round = 0; round < 400; ++round) {
    if (round < 200 && random() % 2 == 0) submit();
    FakeWorker& one = *workers_[random() % 3];
    if (round < 350 && random() % 7 == 0) one.Kill();
    if (random() % 4 == 0) one.Revive();
    for (auto& worker : workers_) worker->Step();
  }
  for (auto& worker : workers_) worker->Revive();
  ASSERT_GT(requests.size(), 50u);
  for (size_t i = 0; i < requests.size(); ++i) {
    Drive(*sinks[i]);
    for (int32_t c = 0; c < requests[i]->sampling.n; ++c) {
      EXPECT_EQ(sinks[i]->tokens(c), AnswerOf(*requests[i], c)) << i << " " << c;
      EXPECT_EQ(sinks[i]->finish(c), FinishReason::kLength);
    }
    EXPECT_EQ(sinks[i]->after_end(), 0);
  }
}

}  // namespace
}  // namespace kvasir::cluster
