#include "engine/local_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "core/retry_after.h"
#include "engine/testing/fake_runner.h"

namespace kvasir::engine {
namespace {

// Counts what a request gets, and lets a test wait for it.
class WaitingSink final : public TokenSink {
 public:
  explicit WaitingSink(int32_t choices) : open_(choices) {}

  void OnEvent(TokenEvent event) override {
    std::lock_guard lock(mutex_);
    if (event.finish) {
      --open_;
      last_finish_ = *event.finish;
    }
    changed_.notify_all();
  }

  FinishReason AwaitFinish() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_ == 0; });
    return last_finish_;
  }
  int32_t open() {
    std::lock_guard lock(mutex_);
    return open_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int32_t open_;
  FinishReason last_finish_ = FinishReason::kError;
};

// Holds the engine's thread inside a pass until it is opened.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void AwaitArrival() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return arrived_ > 0; });
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  bool open_ = false;
};

std::shared_ptr<Request> MakeRequest(std::string id, int32_t prompt, int32_t max_tokens) {
  auto request = std::make_shared<Request>();
  request->id = std::move(id);
  request->prompt_ids.assign(prompt, 3);
  request->sampling.max_tokens = max_tokens;
  return request;
}

class LocalEngineTest : public testing::Test {
 protected:
  void Make(EngineOptions options = {}, Gate* gate = nullptr, int threads = 1) {
    auto runner = std::make_unique<FakeRunner>(FakeRunnerOptions{.threads = threads});
    if (gate) {
      runner->on_run = [gate](const Batch&) {
        gate->Pass();
        return absl::OkStatus();
      };
    }
    const ModelInfo model{.vocab_size = 64, .max_model_len = 100000, .block_size = 16};
    auto engine = LocalEngine::Create(std::move(runner), model, options, clock_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  // Returns once the engine drains.
  void AwaitRefusal() {
    const auto sink = std::make_shared<WaitingSink>(1);
    while (!absl::IsUnavailable(engine_->Submit(MakeRequest("late", 10, 1), sink))) {
    }
  }

  ManualClock clock_;
  Gate gate_;
  std::unique_ptr<LocalEngine> engine_;
};

TEST_F(LocalEngineTest, AnswersManyThreadsAtOnce) {
  Make({.max_num_seqs = 8}, nullptr, 2);
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([this, c] {
      for (int i = 0; i < 25; ++i) {
        const auto request = MakeRequest(absl::StrCat(c, "-", i), 1 + (c * 31 + i * 7) % 90, 20);
        request->sampling.n = 1 + i % 3;
        const auto sink = std::make_shared<WaitingSink>(request->sampling.n);
        ASSERT_TRUE(engine_->Submit(request, sink).ok());
        if (i % 4 == 0) engine_->Cancel(request->id, i % 8 ? std::optional(0) : std::nullopt);
        sink->AwaitFinish();
        engine_->Stats();
        EXPECT_TRUE(engine_->Healthy());
      }
    });
  }
  for (std::thread& client : clients) client.join();
  const Status drained = engine_->Drain(std::chrono::seconds(10));
  EXPECT_TRUE(drained.ok()) << drained;
  EXPECT_EQ(engine_->Stats().blocks_held, 0);
}

TEST_F(LocalEngineTest, AFullQueueNamesTheSecondsToWait) {
  Make({.max_num_seqs = 1, .max_queue = 2}, &gate_);
  const auto sink = std::make_shared<WaitingSink>(4);
  ASSERT_TRUE(engine_->Submit(MakeRequest("a", 10, 4), sink).ok());
  gate_.AwaitArrival();
  // The first is in its pass, but counts as queued until the step is over.
  Status full;
  int accepted = 1;
  while ((full = engine_->Submit(MakeRequest(absl::StrCat(accepted), 10, 4), sink)).ok()) {
    ++accepted;
  }
  EXPECT_EQ(accepted, 2);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GE(RetryAfterSeconds(full), 1.0);
  EXPECT_EQ(RetryAfterSeconds(absl::OkStatus()), std::nullopt);
  gate_.Open();
}

TEST_F(LocalEngineTest, RefusesWhatWouldStartTooLate) {
  Make();
  Request late = *MakeRequest("a", 10, 1);
  late.deadline = clock_.Now() - std::chrono::seconds(1);
  const Status refused =
      engine_->Submit(std::make_shared<Request>(late), std::make_shared<WaitingSink>(1));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("too long"));
}

TEST_F(LocalEngineTest, RefusesAtOnceWhatCanNeverRun) {
  Make();
  EXPECT_EQ(engine_->Model().max_model_len, 64 * 16);
  const auto sink = std::make_shared<WaitingSink>(1);
  const Status refused = engine_->Submit(MakeRequest("a", 64 * 16, 1), sink);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(std::string(refused.message()).starts_with("prompt: "));
}

TEST_F(LocalEngineTest, AnIdInFlightIsNotTakenTwice) {
  Make({}, &gate_);
  const auto first = std::make_shared<WaitingSink>(1), second = std::make_shared<WaitingSink>(1);
  ASSERT_TRUE(engine_->Submit(MakeRequest("a", 10, 4), first).ok());
  ASSERT_TRUE(engine_->Submit(MakeRequest("a", 10, 4), second).ok());
  gate_.Open();
  EXPECT_EQ(first->AwaitFinish(), FinishReason::kLength);
  EXPECT_EQ(second->AwaitFinish(), FinishReason::kError);
}

TEST_F(LocalEngineTest, DrainFinishesWhatIsInFlight) {
  Make({}, &gate_);
  const auto sink = std::make_shared<WaitingSink>(1);
  ASSERT_TRUE(engine_->Submit(MakeRequest("a", 10, 50), sink).ok());
  gate_.AwaitArrival();
  std::thread drain([this] { EXPECT_TRUE(engine_->Drain(std::chrono::hours(1)).ok()); });
  AwaitRefusal();
  gate_.Open();
  drain.join();
  EXPECT_EQ(sink->AwaitFinish(), FinishReason::kLength);
}

TEST_F(LocalEngineTest, AfterItsGraceADrainCancels) {
  Make({}, &gate_);
  const auto sink = std::make_shared<WaitingSink>(1);
  ASSERT_TRUE(engine_->Submit(MakeRequest("a", 10, 1000), sink).ok());
  gate_.AwaitArrival();
  std::thread drain([this] { EXPECT_TRUE(engine_->Drain(Duration::zero()).ok()); });
  AwaitRefusal();
  gate_.Open();
  drain.join();
  EXPECT_EQ(sink->AwaitFinish(), FinishReason::kCancelled);
}

TEST_F(LocalEngineTest, TheDestructorEndsEveryRequest) {
  Make();
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  for (int i = 0; i < 10; ++i) {
    sinks.push_back(std::make_shared<WaitingSink>(1));
    ASSERT_TRUE(engine_->Submit(MakeRequest(absl::StrCat(i), 10, 900), sinks.back()).ok());
  }
  engine_.reset();
  for (const auto& sink : sinks) EXPECT_EQ(sink->open(), 0);
}

TEST_F(LocalEngineTest, AStepThatHangsIsUnhealthyAndIdlenessIsNot) {
  Make({.watchdog = std::chrono::seconds(5)}, &gate_);
  clock_.Advance(std::chrono::hours(1));
  EXPECT_TRUE(engine_->Healthy());
  const auto sink = std::make_shared<WaitingSink>(1);
  ASSERT_TRUE(engine_->Submit(MakeRequest("a", 10, 1), sink).ok());
  gate_.AwaitArrival();
  EXPECT_TRUE(engine_->Healthy());
  clock_.Advance(std::chrono::seconds(6));
  EXPECT_FALSE(engine_->Healthy());
  gate_.Open();
  sink->AwaitFinish();
  EXPECT_TRUE(engine_->Drain(std::chrono::seconds(10)).ok());
  EXPECT_TRUE(engine_->Healthy());
}

TEST_F(LocalEngineTest, EndsWhenItsRunnerFailsForGood) {
  auto runner = std::make_unique<FakeRunner>(FakeRunnerOptions{});
  FakeRunner& device = *runner;
  device.on_run = [&](const Batch& batch) {
    if (batch.sequences[0].start > 0) device.broken = absl::InternalError("the device is gone");
    gate_.Pass();
    return absl::OkStatus();
  };
  std::promise<Status> failed;
  const ModelInfo model{.vocab_size = 64, .max_model_len = 1000, .block_size = 16};
  EngineOptions options{.on_failure = [&](const Status& failure) { failed.set_value(failure); }};
  auto engine = LocalEngine::Create(std::move(runner), model, options, clock_);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const auto first = std::make_shared<WaitingSink>(1), second = std::make_shared<WaitingSink>(1);
  ASSERT_TRUE((*engine)->Submit(MakeRequest("a", 10, 5), first).ok());
  gate_.AwaitArrival();
  ASSERT_TRUE((*engine)->Submit(MakeRequest("b", 10, 5), second).ok());
  gate_.Open();
  EXPECT_EQ(first->AwaitFinish(), FinishReason::kError);
  EXPECT_EQ(second->AwaitFinish(), FinishReason::kError);
  EXPECT_EQ(failed.get_future().get().message(), "the device is gone");
  EXPECT_FALSE((*engine)->Healthy());
  const Status refused = (*engine)->Submit(MakeRequest("c", 10, 5), second);
  EXPECT_TRUE(absl::IsUnavailable(refused));
  EXPECT_EQ(refused.message(), "the device is gone");
  EXPECT_EQ((*engine)->Drain(std::chrono::hours(1)).message(), "the device is gone");
}

TEST_F(LocalEngineTest, OptionsThatContradictAreRefused) {
  const auto create = [this](EngineOptions options, ModelInfo model) {
    return LocalEngine::Create(std::make_unique<FakeRunner>(FakeRunnerOptions()), model, options,
                               clock_)
        .status()
        .code();
  };
  const ModelInfo good{.vocab_size = 64, .max_model_len = 100, .block_size = 16};
  EXPECT_EQ(create({}, good), absl::StatusCode::kOk);
  EXPECT_EQ(create({.max_num_seqs = 0}, good), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(create({.max_queue = 0}, good), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(create({.max_num_batched_tokens = 0}, good), absl::StatusCode::kInvalidArgument);
  ModelInfo other = good;
  other.vocab_size = 65;
  EXPECT_EQ(create({}, other), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvasir::engine
