// The tiny checkpoints through DeviceRunner: on a reference device in plain loops, or on the one
// that KVASIR_TEST_DEVICE names.
#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "cli/testing/golden.h"
#include "cli/testing/whole_model.h"
#include "device/testing/host_device.h"
#include "ops/testing/host_kernels.h"

namespace kvasir::cli {
namespace {

// Deterministic, so that bits can be compared.
ops::Accelerator OpenTestDevice(bool deterministic = true) {
  const char* name = std::getenv("KVASIR_TEST_DEVICE");
  if (name == nullptr) return ops::testing::HostAccelerator();
  StatusOr<ops::Accelerator> out = ops::OpenAccelerator(name, deterministic);
  EXPECT_TRUE(out.ok()) << out.status();
  KVASIR_CHECK(out.ok(), "the device opens");
  return *std::move(out);
}

// All prompts, or under a sanitizer, where plain loops crawl, the first two.
nlohmann::json Prompts(const std::string& model) {
  nlohmann::json prompts = ReadJson(Golden() / "tiny" / model / "golden.json")["prompts"];
  if (!kSanitized) return prompts;
  return nlohmann::json::array({prompts.at(0), prompts.at(1)});
}

class DeviceGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  DeviceGoldenTest()
      : checkpoint_(Load(Golden() / "tiny" / GetParam())), prompts_(Prompts(GetParam())) {}

  // In deviations of the logits.
  double LargestDifference(Model& model) const {
    double largest = 0;
    for (const auto& prompt : prompts_) {
      const auto logits = model.Prefill(prompt["ids"].get<std::vector<TokenId>>());
      for (const auto& [id, value] :
           prompt["top16"].get<std::vector<std::pair<size_t, double>>>()) {
        largest = std::max(largest, std::abs(logits.at(id) - value) / prompt["std"].get<double>());
      }
    }
    return largest;
  }

  static constexpr int32_t kMaxTokens = 192;
  static constexpr int32_t kRecordedRows = 4;
  const std::shared_ptr<const model::Checkpoint> checkpoint_;
  const nlohmann::json prompts_;
};

TEST_P(DeviceGoldenTest, MeetsTheReference) {
  for (const bool deterministic : {true, false}) {
    Model model(checkpoint_, kMaxTokens, OpenTestDevice(deterministic), kRecordedRows);
    const double difference = LargestDifference(model);
    // BF16 in all that products and attention read; KV alone takes up to 2.5e-2.
    EXPECT_LE(difference, 6e-2);
    fmt::print("{}: a logit differs by at most {:.2e} std\n", GetParam(), difference);
  }
}

TEST_P(DeviceGoldenTest, GreedyTokensAreThoseOfTheReference) {
  Model model(checkpoint_, kMaxTokens, OpenTestDevice(), kRecordedRows);
  for (const auto& prompt : prompts_) {
    auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const auto greedy = prompt["greedy"].get<std::vector<TokenId>>();
    const auto margins = prompt["margins"].get<std::vector<double>>();
    for (size_t i = 0; i < greedy.size() && margins[i] >= 6e-2 * prompt["std"].get<double>(); ++i) {
      EXPECT_EQ(model.Best(ids), greedy[i]) << "step " << i;
      ids.push_back(greedy[i]);
    }
  }
}

// Single tokens are recorded decodes.
TEST_P(DeviceGoldenTest, ChunksAndCompanyAndRecordingsChangeNoBit) {
  Model model(checkpoint_, 2 * kMaxTokens, OpenTestDevice(), kRecordedRows);
  const auto other = prompts_.front()["ids"].get<std::vector<TokenId>>();
  for (const auto& prompt : prompts_) {
    const auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const std::vector<float> whole = model.Prefill(ids);
    for (const size_t chunk : {1, 5, 64}) {
      EXPECT_EQ(DifferentBits(model.Prefill(ids, chunk), whole), 0) << chunk;
    }
    EXPECT_EQ(DifferentBits(model.PrefillBeside(other, ids), whole), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, DeviceGoldenTest,
                         testing::Values("llama", "llama_tied", "qwen2", "qwen3"),
                         [](const auto& info) { return info.param; });

class DeviceRunnerTest : public testing::Test {
 protected:
  static constexpr int32_t kBlock = 16;

  void Start(int32_t blocks, ops::Accelerator accelerator) {
    ThreadPool pool(1);
    auto plan = compile::Compile(Load(Golden() / "tiny" / "llama"),
                                 {.kernels = Kernels("auto"),
                                  .activations = compile::Activations::kBf16,
                                  .max_model_len = 64},
                                 pool);
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_EQ(plan->kv.block_size, kBlock);
    auto runner = runtime::DeviceRunner::Create(
        *std::move(plan), {.num_blocks = blocks, .max_recorded_rows = 2},
        std::make_unique<ThreadPool>(1), std::move(accelerator));
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  // The logits after the last of `tokens`, which stand at `start` of a sequence in `blocks`.
  std::vector<float> Run(const std::vector<TokenId>& tokens, const std::vector<BlockId>& blocks,
                         int32_t start = 0) {
    std::vector<float> logits(runner_->vocab_size());
    Batch batch;
    batch.sequences.push_back({.tokens = tokens, .start = start, .blocks = blocks, .logits = 1});
    const Status ran = runner_->Run(batch, {.logits = absl::MakeSpan(logits)});
    EXPECT_TRUE(ran.ok()) << ran;
    return logits;
  }

  std::unique_ptr<runtime::DeviceRunner> runner_;
};

// More blocks in page tables than there is room for at the start: what was recorded is anew.
TEST_F(DeviceRunnerTest, LongPageTablesChangeNoBit) {
  Start(4, OpenTestDevice());
  const std::vector<float> expected = Run({7}, {1});
  EXPECT_EQ(Run({7}, std::vector<BlockId>(100000, 1)), expected);
  EXPECT_EQ(Run({7}, {1}), expected);
}

// As tiers do it: blocks leave while others are computed, theirs are written over, and they come
// back elsewhere, without anybody waiting.
TEST_F(DeviceRunnerTest, BlocksComeBackAsTheyWere) {
  Start(10, OpenTestDevice());
  const std::vector<TokenId> tokens(2 * kBlock, 5), others(2 * kBlock, 9);
  Run(tokens, {0, 1});
  const std::vector<float> expected = Run({7}, {0, 1, 2}, 2 * kBlock);
  const int64_t bytes = runner_->block_bytes();
  device::Device& device = runner_->device();
  auto host = device.AllocateHost(2 * bytes);
  ASSERT_TRUE(host.ok()) << host.status();
  uint8_t* const one = host->bytes();
  uint8_t* const other = one + bytes;
  const device::Transfer first = runner_->CopyOut({{0, one}});
  const device::Transfer last = runner_->CopyOut({{1, other}});
  const std::vector<float> beside = Run(others, {3, 4});
  EXPECT_TRUE(device.Await(last).ok());
  EXPECT_TRUE(device.HasEnded(first) && device.HasEnded(last));
  EXPECT_EQ(Run(others, {0, 1}), beside);
  device.OrderAfter(runner_->CopyIn({{6, one}, {7, other}}));
  EXPECT_EQ(Run({7}, {6, 7, 8}, 2 * kBlock), expected);
}

TEST_F(DeviceRunnerTest, AFaultOfTheDeviceStays) {
  ops::Accelerator accelerator = ops::testing::HostAccelerator();
  auto& device = static_cast<device::testing::HostDevice&>(*accelerator.device);
  Start(4, std::move(accelerator));
  EXPECT_TRUE(runner_->failure().ok());
  device.Fail(absl::InternalError("device 'host': planted"));
  std::vector<float> logits(runner_->vocab_size());
  const std::vector<TokenId> tokens = {7};
  const std::vector<BlockId> blocks = {1};
  Batch batch;
  batch.sequences.push_back({.tokens = tokens, .blocks = blocks, .logits = 1});
  EXPECT_EQ(runner_->Run(batch, {.logits = absl::MakeSpan(logits)}), runner_->failure());
  EXPECT_EQ(runner_->failure().message(), "device 'host': planted");
}

TEST(DeviceRunner, RefusesWhatTheDeviceDoesNot) {
  ThreadPool pool(1);
  const auto create = [&](const std::string& name) {
    auto plan = compile::Compile(Load(Golden() / "tiny" / name),
                                 {.kernels = Kernels("auto"),
                                  .activations = compile::Activations::kBf16,
                                  .max_model_len = 64},
                                 pool);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return runtime::DeviceRunner::Create(*std::move(plan), {.num_blocks = 4},
                                         std::make_unique<ThreadPool>(1), OpenTestDevice())
        .status();
  };
  EXPECT_EQ(create("gemma2").code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(create("mixtral").code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(create("deepseek_v3").code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace kvasir::cli
