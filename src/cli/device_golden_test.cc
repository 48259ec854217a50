// The tiny checkpoints through DeviceRunner: on a reference device in plain loops, or on the one
// that KVASIR_TEST_DEVICE names.
#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "cli/testing/golden.h"
#include "cli/testing/whole_model.h"
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

// More blocks in page tables than there is room for at the start: what was recorded is anew.
TEST(DeviceRunner, LongPageTablesChangeNoBit) {
  ThreadPool pool(1);
  auto plan = compile::Compile(
      Load(Golden() / "tiny" / "llama"),
      {.kernels = Kernels("auto"), .activations = compile::Activations::kBf16, .max_model_len = 64},
      pool);
  ASSERT_TRUE(plan.ok()) << plan.status();
  auto runner =
      runtime::DeviceRunner::Create(*std::move(plan), {.num_blocks = 4, .max_recorded_rows = 2},
                                    std::make_unique<ThreadPool>(1), OpenTestDevice());
  ASSERT_TRUE(runner.ok()) << runner.status();
  const std::vector<TokenId> token = {7};
  const auto decode = [&](const std::vector<BlockId>& blocks) {
    std::vector<float> logits((*runner)->vocab_size());
    Batch batch;
    batch.sequences.push_back({.tokens = token, .blocks = blocks, .logits = 1});
    const Status ran = (*runner)->Run(batch, {.logits = absl::MakeSpan(logits)});
    EXPECT_TRUE(ran.ok()) << ran;
    return logits;
  };
  const std::vector<float> expected = decode({1});
  EXPECT_EQ(decode(std::vector<BlockId>(100000, 1)), expected);
  EXPECT_EQ(decode({1}), expected);
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
