#include "engine/core.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/block_hash.h"
#include "engine/admission.h"
#include "engine/testing/fake_runner.h"
#include "engine/testing/recording_sink.h"

namespace kvasir::engine {
namespace {

constexpr int32_t kVocab = 64;

std::vector<TokenId> Tokens(int32_t count, uint32_t seed = 1) {
  std::vector<TokenId> ids(count);
  for (TokenId& id : ids) id = static_cast<TokenId>((seed = seed * 1664525u + 1013904223u) >> 26);
  return ids;
}

class CoreTest : public testing::Test {
 protected:
  void Make(FakeRunnerOptions runner = {}, EngineOptions options = {}) {
    core_.reset();
    runner_ = std::make_unique<FakeRunner>(runner);
    runner_->on_run = [this](const Batch& batch) {
      ++runs_;
      clock_.Advance(FromSeconds(StepSeconds(batch)));
      return absl::OkStatus();
    };
    ModelInfo model{.name = "fake",
                    .vocab_size = runner.vocab_size,
                    .max_model_len = 4096,
                    .block_size = runner.block_size,
                    .eos_ids = {}};
    core_ = std::make_unique<Core>(*runner_, *FitModel(model, *runner_), options, clock_);
  }

  // A made-up machine: 5 ms a pass, 0.5 ms a decode, 1 ms a prefill token.
  static double StepSeconds(const Batch& batch) {
    double seconds = 0.005;
    for (const BatchSequence& s : batch.sequences) {
      seconds += s.tokens.size() == 1 ? 0.0005 : 0.001 * static_cast<double>(s.tokens.size());
    }
    return seconds;
  }

  Request MakeRequest(std::vector<TokenId> prompt, int32_t max_tokens = 8) {
    Request request;
    request.id = absl::StrCat("r", next_id_++);
    request.hash_root = CacheRoot("w", "n", "", "");
    request.unit_hashes = HashUnits(request.hash_root, prompt);
    request.prompt_ids = std::move(prompt);
    request.sampling.max_tokens = max_tokens;
    request.sampling.seed = 42;
    return request;
  }

  std::shared_ptr<RecordingSink> Add(const Request& request) {
    auto sink = std::make_shared<RecordingSink>();
    const Status added = core_->Add(std::make_shared<Request>(request), sink);
    EXPECT_TRUE(added.ok()) << added;
    return sink;
  }

  void RunToEnd() {
    while (core_->Step()) {
      ASSERT_TRUE(core_->CheckIntegrity().ok()) << core_->CheckIntegrity();
    }
    ASSERT_TRUE(core_->idle());
    EXPECT_EQ(core_->stats().blocks_held, 0);
  }

  ManualClock clock_;
  int runs_ = 0;
  int next_id_ = 0;
  std::unique_ptr<FakeRunner> runner_;
  std::unique_ptr<Core> core_;
};

TEST_F(CoreTest, GeneratesMaxTokens) {
  Make();
  const auto sink = Add(MakeRequest(Tokens(20), 8));
  RunToEnd();
  ASSERT_TRUE(sink->Finished(1));
  EXPECT_EQ(sink->choices[0].tokens.size(), 8u);
  EXPECT_EQ(sink->choices[0].finish, FinishReason::kLength);
  EXPECT_EQ(sink->choices[0].cached_tokens, 0);
  EXPECT_EQ(core_->stats().generated_tokens, 8);
  EXPECT_EQ(core_->stats().computed_prompt_tokens, 20);
}

TEST_F(CoreTest, TheSecondTimeHitsAllButTheLastToken) {
  Make();
  for (int32_t length : {16, 32, 33, 47}) {
    const auto cold = Add(MakeRequest(Tokens(length, length)));
    RunToEnd();
    const auto warm = Add(MakeRequest(Tokens(length, length)));
    RunToEnd();
    EXPECT_EQ(warm->choices[0].cached_tokens, (length - 1) / 16 * 16);
    EXPECT_EQ(warm->choices[0].tokens, cold->choices[0].tokens);
  }
}

TEST_F(CoreTest, TheNextTurnHitsWhatWasGenerated) {
  Make();
  const auto first = Add(MakeRequest(Tokens(20), 30));
  RunToEnd();
  std::vector<TokenId> next = Tokens(20);
  next.insert(next.end(), first->choices[0].tokens.begin(), first->choices[0].tokens.end());
  next.push_back(1);
  const auto second = Add(MakeRequest(next, 4));
  RunToEnd();
  EXPECT_EQ(second->choices[0].cached_tokens, 48);
}

TEST_F(CoreTest, WhatASequenceHeldToItsEndIsEvictedLast) {
  Make({.num_blocks = 8});
  Add(MakeRequest(Tokens(40, 1), 20));
  core_->Step();
  Add(MakeRequest(Tokens(40, 2), 1));  // starts later and ends earlier
  RunToEnd();
  Add(MakeRequest(Tokens(90, 3), 1));  // evicts three blocks
  RunToEnd();
  const auto again = Add(MakeRequest(Tokens(40, 1), 1));
  RunToEnd();
  EXPECT_EQ(again->choices[0].cached_tokens, 32);
}

TEST_F(CoreTest, EightAtOnceComputeTheirPrefixOnce) {
  Make({.num_blocks = 512});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 8; ++i) {
    std::vector<TokenId> prompt = Tokens(500);
    const std::vector<TokenId> own = Tokens(20, 100 + i);
    prompt.insert(prompt.end(), own.begin(), own.end());
    sinks.push_back(Add(MakeRequest(prompt, 4)));
  }
  RunToEnd();
  EXPECT_EQ(core_->stats().computed_prompt_tokens, 520 + 7 * (520 - 496));
  for (int i = 1; i < 8; ++i) EXPECT_EQ(sinks[i]->choices[0].cached_tokens, 496);
}

TEST_F(CoreTest, ChoicesShareThePromptUntilTheyWrite) {
  Make();
  Request request = MakeRequest(Tokens(40), 8);
  request.sampling.n = 4;
  const auto sink = Add(request);
  core_->Step();
  EXPECT_EQ(core_->stats().blocks_held, 3);
  EXPECT_EQ(core_->stats().forks, 3);
  RunToEnd();
  ASSERT_TRUE(sink->Finished(4));
  EXPECT_EQ(core_->stats().computed_prompt_tokens, 40);
  EXPECT_EQ(core_->stats().copy_on_writes, 3);
  for (int c = 1; c < 4; ++c) EXPECT_NE(sink->choices[c].tokens, sink->choices[0].tokens);
}

TEST_F(CoreTest, ChoiceZeroOfManyIsTheOnlyChoiceOfOne) {
  Make();
  Request request = MakeRequest(Tokens(40), 8);
  const auto one = Add(request);
  RunToEnd();
  request.id = "many";
  request.sampling.n = 3;
  const auto many = Add(request);
  RunToEnd();
  EXPECT_EQ(many->choices[0].tokens, one->choices[0].tokens);
}

TEST_F(CoreTest, MoreChoicesThanSlotsTakeTurns) {
  Make({.num_blocks = 16}, {.max_num_seqs = 2});
  Request request = MakeRequest(Tokens(40), 20);
  request.sampling.n = 5;
  const auto sink = Add(request);
  while (core_->Step()) EXPECT_LE(core_->stats().running, 2);
  EXPECT_TRUE(sink->Finished(5));
  EXPECT_TRUE(core_->CheckIntegrity().ok());
}

TEST_F(CoreTest, PreemptionChangesNoToken) {
  Make({.num_blocks = 512});
  std::vector<std::vector<TokenId>> alone;
  for (int i = 0; i < 4; ++i) {
    const auto sink = Add(MakeRequest(Tokens(60, i), 60));
    RunToEnd();
    alone.push_back(sink->choices[0].tokens);
  }
  Make({.num_blocks = 16});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 4; ++i) sinks.push_back(Add(MakeRequest(Tokens(60, i), 60)));
  RunToEnd();
  EXPECT_GT(core_->stats().preemptions, 0);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(sinks[i]->choices[0].tokens, alone[i]);
}

TEST_F(CoreTest, EndsWithAStopTokenIncluded) {
  Make();
  const auto free = Add(MakeRequest(Tokens(20), 8));
  RunToEnd();
  Request request = MakeRequest(Tokens(20), 8);
  request.sampling.stop_token_ids = {free->choices[0].tokens[2]};
  const auto stopped = Add(request);
  RunToEnd();
  EXPECT_EQ(stopped->choices[0].finish, FinishReason::kStop);
  EXPECT_LE(stopped->choices[0].tokens.size(), 3u);
  EXPECT_EQ(stopped->choices[0].tokens.back(), request.sampling.stop_token_ids[0]);
}

TEST_F(CoreTest, CutsMaxTokensToTheContext) {
  Make({.num_blocks = 4});
  EXPECT_EQ(core_->model().max_model_len, 64);
  const auto sink = Add(MakeRequest(Tokens(60), 1000));
  RunToEnd();
  EXPECT_EQ(sink->choices[0].tokens.size(), 4u);
  EXPECT_EQ(sink->choices[0].finish, FinishReason::kLength);
}

TEST_F(CoreTest, RefusesWhatCanNeverRun) {
  Make({.num_blocks = 4});
  const auto refused = [&](const Request& request) {
    const auto sink = std::make_shared<RecordingSink>();
    return std::string(core_->Add(std::make_shared<Request>(request), sink).message());
  };
  EXPECT_TRUE(refused(MakeRequest(Tokens(64))).starts_with("prompt: "));
  EXPECT_TRUE(refused(MakeRequest({})).starts_with("prompt: "));
  EXPECT_TRUE(refused(MakeRequest({kVocab})).starts_with("prompt: "));
  EXPECT_TRUE(refused(MakeRequest({-1})).starts_with("prompt: "));
  EXPECT_TRUE(core_->idle());
}

TEST_F(CoreTest, CancelFreesBlocksAtOnce) {
  Make();
  const Request request = MakeRequest(Tokens(100), 100);
  const auto sink = Add(request);
  for (int i = 0; i < 5; ++i) core_->Step();
  core_->Cancel(request.id, std::nullopt);
  EXPECT_EQ(sink->choices[0].finish, FinishReason::kCancelled);
  EXPECT_EQ(core_->stats().blocks_held, 0);
  EXPECT_TRUE(core_->idle());
  core_->Cancel(request.id, std::nullopt);
}

TEST_F(CoreTest, CancellingOneChoiceLeavesTheOthers) {
  for (int steps : {0, 1, 3}) {
    Make();
    Request request = MakeRequest(Tokens(300), 8);
    request.sampling.n = 3;
    const auto sink = Add(request);
    for (int i = 0; i < steps; ++i) core_->Step();
    core_->Cancel(request.id, 0);
    RunToEnd();
    ASSERT_TRUE(sink->Finished(3));
    EXPECT_EQ(sink->choices[0].finish, FinishReason::kCancelled);
    EXPECT_EQ(sink->choices[1].tokens.size(), 8u);
    EXPECT_EQ(sink->choices[2].tokens.size(), 8u);
  }
}

TEST_F(CoreTest, PastItsDeadlineARequestIsCancelled) {
  Make();
  Request request = MakeRequest(Tokens(20), 1000);
  request.deadline = clock_.Now() + FromSeconds(0.2);
  const auto sink = Add(request);
  const auto other = Add(MakeRequest(Tokens(20), 100));
  RunToEnd();
  EXPECT_EQ(sink->choices[0].finish, FinishReason::kCancelled);
  EXPECT_GT(sink->choices[0].tokens.size(), 0u);
  EXPECT_EQ(other->choices[0].finish, FinishReason::kLength);
}

TEST_F(CoreTest, AFailedPassFailsItsSequencesAlone) {
  Make();
  const auto lost = Add(MakeRequest(Tokens(20), 10));
  core_->Step();
  runner_->on_run = [](const Batch&) { return absl::InternalError("the device is gone"); };
  core_->Step();
  runner_->on_run = nullptr;
  const auto next = Add(MakeRequest(Tokens(20), 10));
  RunToEnd();
  EXPECT_EQ(lost->choices[0].finish, FinishReason::kError);
  EXPECT_EQ(lost->choices[0].error.message(), "the device is gone");
  EXPECT_EQ(next->choices[0].finish, FinishReason::kLength);
}

TEST_F(CoreTest, ARunnerThatFailsForGoodEndsEveryRequest) {
  Make({}, {.max_num_seqs = 1});
  Request many = MakeRequest(Tokens(20), 10);
  many.sampling.n = 3;
  const auto running = Add(many), waiting = Add(MakeRequest(Tokens(20), 10));
  core_->Step();
  runner_->broken = absl::InternalError("the device is gone");
  RunToEnd();
  for (const auto& sink : {running, waiting}) {
    for (const auto& [index, choice] : sink->choices) {
      EXPECT_EQ(choice.finish, FinishReason::kError) << index;
      EXPECT_EQ(choice.error.message(), "the device is gone") << index;
    }
  }
  EXPECT_EQ(core_->failure().message(), "the device is gone");
}

TEST_F(CoreTest, LogitsThatAreNoNumbersFailTheirRequestAlone) {
  Make();
  const auto poisoned = Add(MakeRequest(Tokens(20), 10));
  const auto healthy = Add(MakeRequest(Tokens(30), 10));
  runner_->on_logits = [](const Batch& batch, absl::Span<float> logits) {
    size_t row = 0;
    for (const BatchSequence& s : batch.sequences) {
      if (s.start == 0 && s.tokens.size() == 20) logits[row * kVocab + 3] = NAN;
      row += s.logits;
    }
  };
  RunToEnd();
  EXPECT_EQ(poisoned->choices[0].finish, FinishReason::kError);
  EXPECT_EQ(healthy->choices[0].tokens.size(), 10u);
}

TEST_F(CoreTest, LowerPriorityGoesFirstAndAges) {
  Make({}, {.max_num_seqs = 1});
  Request late = MakeRequest(Tokens(20), 2), urgent = MakeRequest(Tokens(21), 2);
  late.priority = 1;
  Add(MakeRequest(Tokens(19), 2));
  const auto second = Add(late);
  const auto first = Add(urgent);
  while (!first->Finished(1)) {
    core_->Step();
    EXPECT_FALSE(second->Finished(1));
  }
  RunToEnd();
  Request aged = MakeRequest(Tokens(22), 2);
  aged.priority = 1;
  const auto old = Add(aged);
  clock_.Advance(std::chrono::seconds(11));
  const auto young = Add(MakeRequest(Tokens(23), 2));
  while (!old->Finished(1)) {
    core_->Step();
    EXPECT_FALSE(young->Finished(1));
  }
  RunToEnd();
}

// In virtual time on the made-up machine.
TEST_F(CoreTest, ALongPromptStallsNoStream) {
  Make({.num_blocks = 1024});
  std::vector<std::shared_ptr<RecordingSink>> streams;
  for (int i = 0; i < 8; ++i) streams.push_back(Add(MakeRequest(Tokens(32, i), 1000)));
  for (int i = 0; i < 50; ++i) core_->Step();
  TimePoint before = clock_.Now();
  core_->Step();
  const Duration median = clock_.Now() - before;
  const auto prompt = Add(MakeRequest(Tokens(4000, 99), 1));
  const TimePoint start = clock_.Now();
  Duration longest{};
  while (!prompt->Finished(1)) {
    before = clock_.Now();
    core_->Step();
    longest = std::max(longest, clock_.Now() - before);
  }
  const double ttft = ToSeconds(clock_.Now() - start);
  EXPECT_LE(longest, 4 * median);
  Make({.num_blocks = 1024});
  Add(MakeRequest(Tokens(4000, 99), 1));
  const TimePoint alone = clock_.Now();
  RunToEnd();
  EXPECT_LE(ttft, 2.5 * ToSeconds(clock_.Now() - alone));
}

TEST_F(CoreTest, TellsTheRetryAfterFromTheQueue) {
  Make({}, {.max_num_seqs = 1});
  EXPECT_EQ(core_->RetryAfterSeconds(), 1);
  Add(MakeRequest(Tokens(20), 1000));
  for (int i = 0; i < 100; ++i) core_->Step();
  Add(MakeRequest(Tokens(20), 10));
  EXPECT_GE(core_->RetryAfterSeconds(), 4);  // 880 more steps of 5.5 ms
  EXPECT_LE(core_->RetryAfterSeconds(), 7);
}

TEST_F(CoreTest, ACancelledEmbeddingIsNoPartOfOne) {
  Make({}, {.max_num_batched_tokens = 16});
  Request request = MakeRequest(Tokens(60), 0);
  request.pooling = Pooling::kMean;
  const auto sink = Add(request);
  core_->Step();
  core_->Cancel(request.id, std::nullopt);
  EXPECT_EQ(sink->choices[0].finish, FinishReason::kCancelled);
  EXPECT_TRUE(sink->embedding.empty());
}

TEST_F(CoreTest, PredictsHowLongTheQueueIs) {
  Make({}, {.max_num_seqs = 1});
  EXPECT_EQ(core_->QueueSeconds(), 0);
  Add(MakeRequest(Tokens(20), 1000));
  for (int i = 0; i < 100; ++i) core_->Step();
  const double one = core_->QueueSeconds();
  EXPECT_GT(one, 0.2);  // a choice of usual length, in steps of 5.5 ms
  Add(MakeRequest(Tokens(20), 10));
  EXPECT_GT(core_->QueueSeconds(), one + 0.2);
}

}  // namespace
}  // namespace kvasir::engine
