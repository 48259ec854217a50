// LocalEngine over the runner that serves real models, with a tiny checkpoint: clients on several
// threads submit, cancel and wait while the engine's thread drives the compute pool. Seconds long
// under the race detector, which it is there for; every build checks the answers too.
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>

#include "compile/compiler.h"
#include "core/block_hash.h"
#include "engine/local_engine.h"
#include "engine/testing/recording_sink.h"
#include "model/checkpoint.h"
#include "ops/cpu/dispatch.h"
#include "runtime/plan_runner.h"

namespace kvasir::engine {
namespace {

constexpr int kClients = 4;
constexpr int kRequests = 10;    // of each client
constexpr int32_t kShared = 40;  // tokens that half of the prompts begin with
constexpr int32_t kMaxModelLen = 128;

// Keeps what a request gets, for a thread that waits for it.
class AwaitedSink final : public TokenSink {
 public:
  explicit AwaitedSink(int32_t choices) : choices_(choices) {}

  void OnEvent(TokenEvent event) override {
    const std::lock_guard lock(mutex_);
    events_.OnEvent(std::move(event));
    changed_.notify_all();
  }

  void AwaitFirstEvent() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !events_.choices.empty(); });
  }

  std::map<int32_t, RecordingSink::Choice> AwaitFinish() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return events_.Finished(choices_); });
    return events_.choices;
  }

 private:
  const int32_t choices_;
  std::mutex mutex_;
  std::condition_variable changed_;
  RecordingSink events_;
};

enum class Leaves { kNever, kAtOnce, kAfterATokenWithOneChoice };

// What the client with this request does before its answer is whole.
Leaves LeavesWhen(int number) {
  if (number % 4 == 1) return Leaves::kAfterATokenWithOneChoice;
  return number % 4 == 3 ? Leaves::kAtOnce : Leaves::kNever;
}

class TinyModelTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto folder = std::filesystem::path(KVASIR_TEST_DATA) / "golden" / "tiny" / GetParam();
    auto loaded = model::LoadCheckpoint(folder.string());
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    checkpoint_ = std::make_shared<const model::Checkpoint>(*std::move(loaded));
  }

  std::unique_ptr<LocalEngine> Engine(EngineOptions options, int32_t blocks, int threads) {
    auto pool = std::make_unique<ThreadPool>(threads);
    auto plan = compile::Compile(checkpoint_,
                                 {.kernels = *ops::SelectKernels("auto"),
                                  .max_model_len = kMaxModelLen,
                                  .max_batch_tokens = 64},
                                 *pool);
    EXPECT_TRUE(plan.ok()) << plan.status();
    auto runner = runtime::PlanRunner::Create(*std::move(plan), blocks, std::move(pool));
    EXPECT_TRUE(runner.ok()) << runner.status();
    const ModelInfo info{.vocab_size = (*runner)->vocab_size(),
                         .max_model_len = kMaxModelLen,
                         .block_size = (*runner)->block_size()};
    auto engine = LocalEngine::Create(*std::move(runner), info, options, clock_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  std::shared_ptr<Request> MakeRequest(int client, int number) const {
    std::mt19937 random(client * kRequests + number);
    std::mt19937 shared(1);
    auto request = std::make_shared<Request>();
    request->id = absl::StrCat(client, "-", number);
    const int32_t length = 1 + static_cast<int32_t>(random() % 90);
    for (int32_t i = 0; i < length; ++i) {
      std::mt19937& source = number % 2 == 0 && i < kShared ? shared : random;
      request->prompt_ids.push_back(static_cast<TokenId>(source() % checkpoint_->config.vocab));
    }
    request->hash_root = CacheRoot("weights", "numerics", "", "");
    request->unit_hashes = HashUnits(request->hash_root, request->prompt_ids);
    request->priority = number % 3;
    request->sampling.temperature = number % 2 ? 1.0f : 0.0f;
    request->sampling.seed = random();
    request->sampling.n = 1 + number % 3;
    request->sampling.max_tokens = 4 + number;
    request->sampling.ignore_eos = true;
    if (number % 5 == 2) request->beams = BeamSearch{.length_penalty = 0.5f};
    return request;
  }

  // The answers of each request when it is alone on an engine without a cache.
  void AnswerAlone() {
    const auto engine = Engine({.enable_prefix_caching = false}, /*blocks=*/64, /*threads=*/1);
    for (int client = 0; client < kClients; ++client) {
      for (int number = 0; number < kRequests; ++number) {
        const auto request = MakeRequest(client, number);
        const auto sink = std::make_shared<AwaitedSink>(request->sampling.n);
        ASSERT_TRUE(engine->Submit(request, sink).ok());
        for (auto& [index, choice] : sink->AwaitFinish()) {
          alone_[{request->id, index}] = std::move(choice.tokens);
        }
      }
    }
  }

  // A choice that was cancelled has a beginning of its answer, any other the whole.
  void ExpectAnswer(const Request& request, int32_t index,
                    const RecordingSink::Choice& choice) const {
    const std::vector<TokenId>& whole = alone_.at({request.id, index});
    if (choice.finish == FinishReason::kCancelled) {
      ASSERT_LE(choice.tokens.size(), whole.size());
      EXPECT_TRUE(std::equal(choice.tokens.begin(), choice.tokens.end(), whole.begin()));
      return;
    }
    EXPECT_EQ(choice.finish, FinishReason::kLength) << choice.error;
    EXPECT_EQ(choice.tokens, whole) << request.id << " choice " << index;
  }

  void RunClient(LocalEngine& engine, int client) const {
    for (int number = 0; number < kRequests; ++number) {
      const auto request = MakeRequest(client, number);
      const auto sink = std::make_shared<AwaitedSink>(request->sampling.n);
      ASSERT_TRUE(engine.Submit(request, sink).ok());
      if (LeavesWhen(number) == Leaves::kAtOnce) engine.Cancel(request->id, std::nullopt);
      if (LeavesWhen(number) == Leaves::kAfterATokenWithOneChoice) {
        sink->AwaitFirstEvent();
        engine.Cancel(request->id, 0);
      }
      EXPECT_GE(engine.Stats().running, 0);
      for (const auto& [index, choice] : sink->AwaitFinish()) {
        ExpectAnswer(*request, index, choice);
        EXPECT_TRUE(choice.finish != FinishReason::kCancelled ||
                    LeavesWhen(number) != Leaves::kNever);
      }
    }
  }

  const SteadyClock clock_;
  std::shared_ptr<const model::Checkpoint> checkpoint_;
  std::map<std::pair<std::string, int32_t>, std::vector<TokenId>> alone_;  // request, choice
};

TEST_P(TinyModelTest, ClientsOnManyThreadsGetTheAnswersThatTheyGetAlone) {
  ASSERT_NO_FATAL_FAILURE(AnswerAlone());
  EngineOptions options{.max_num_seqs = 6};
  options.test.preempt_every_n_steps = 7;
  // Few blocks, so that the cache is evicted from all the time.
  const auto engine = Engine(options, /*blocks=*/40, /*threads=*/3);
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([this, &engine, c] { RunClient(*engine, c); });
  }
  for (std::thread& client : clients) client.join();
  const Status drained = engine->Drain(std::chrono::seconds(30));
  EXPECT_TRUE(drained.ok()) << drained;
  const EngineStats stats = engine->Stats();
  EXPECT_EQ(stats.blocks_held, 0);
  EXPECT_GT(stats.cached_prompt_tokens, 0);
  EXPECT_GT(stats.preemptions, 0);
  EXPECT_GT(stats.forks, 0);
}

INSTANTIATE_TEST_SUITE_P(Architectures, TinyModelTest, testing::Values("llama", "qwen2"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace kvasir::engine
