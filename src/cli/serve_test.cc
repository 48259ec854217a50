#include "cli/serve.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "engine/local_engine.h"
#include "engine/testing/fake_runner.h"
#include "engine/testing/recording_sink.h"

namespace kvasir::cli {
namespace {

// A device that fails while a request is under way ends the server as its own error.
TEST(ServeUntil, EndsWithTheErrorOfAnEngineThatFailsForGood) {
  auto runner = std::make_unique<engine::FakeRunner>(engine::FakeRunnerOptions{});
  engine::FakeRunner& device = *runner;
  device.on_run = [&](const Batch& batch) {
    if (batch.sequences[0].start > 0) device.broken = absl::InternalError("the device is gone");
    return absl::OkStatus();
  };
  Status ended;
  std::shared_ptr<engine::RecordingSink> sink = std::make_shared<engine::RecordingSink>();
  // (In a thread of its own, whose mask of signals dies with it.)
  std::thread([&] {
    StopSignal stop(false);
    const SteadyClock clock;
    const ModelInfo model{.vocab_size = 64, .max_model_len = 1000, .block_size = 16};
    const auto engine = engine::LocalEngine::Create(
        std::move(runner), model, {.on_failure = [&](const Status&) { stop.Raise(); }}, clock);
    ASSERT_TRUE(engine.ok()) << engine.status();
    auto request = std::make_shared<Request>();
    request->id = "a";
    request->prompt_ids = {1, 2, 3};
    request->sampling.max_tokens = 5;
    ASSERT_TRUE((*engine)->Submit(request, sink).ok());
    api::ApiOptions options;
    options.http.port = 0;
    ended = ServeUntil(stop, **engine, {}, options, std::chrono::hours(1));
    if (ended.ok()) ended = (*engine)->Drain(Duration::zero());
  }).join();
  EXPECT_EQ(ended.message(), "the device is gone");
}

TEST(ServeUntil, EndsWithoutAnErrorWhenStopped) {
  Status ended = absl::UnknownError("");
  std::thread([&] {
    StopSignal stop(false);
    const SteadyClock clock;
    const ModelInfo model{.vocab_size = 64, .max_model_len = 1000, .block_size = 16};
    const auto engine = engine::LocalEngine::Create(
        std::make_unique<engine::FakeRunner>(engine::FakeRunnerOptions{}), model, {}, clock);
    ASSERT_TRUE(engine.ok()) << engine.status();
    stop.Raise();
    api::ApiOptions options;
    options.http.port = 0;
    ended = ServeUntil(stop, **engine, {}, options, Duration::zero());
    if (ended.ok()) ended = (*engine)->Drain(Duration::zero());
  }).join();
  EXPECT_TRUE(ended.ok()) << ended;
}

}  // namespace
}  // namespace kvasir::cli
