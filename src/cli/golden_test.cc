// The real path, files to logits, against values that transformers and a float32 reference gave:
// tests/data/golden. Everything is compared teacher-forced, because a free-running continuation
// parts for good at the first tie.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/check.h"
#include "cli/cache_dir.h"
#include "cli/served_model.h"
#include "compile/compiler.h"
#include "model/checkpoint.h"
#include "ops/cpu/dispatch.h"
#include "runtime/plan_runner.h"

namespace kvasir::cli {
namespace {

using compile::Activations;
using compile::CompileOptions;
using runtime::PlanRunner;

// Sanitized builds run the tiny models only: the real one would take minutes there and show no
// path that the tiny ones do not.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

constexpr size_t kVisitedRows = 64;  // of logits at a time

// Lengthens what would take minutes.
bool LongTests() { return std::getenv("KVASIR_LONG_TESTS") != nullptr; }

std::filesystem::path Golden() { return std::filesystem::path(KVASIR_TEST_DATA) / "golden"; }

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

nlohmann::json ReadJson(const std::filesystem::path& path) {
  return nlohmann::json::parse(ReadText(path));
}

std::shared_ptr<const model::Checkpoint> Load(const std::filesystem::path& path) {
  StatusOr<model::Checkpoint> checkpoint = model::LoadCheckpoint(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (!checkpoint.ok()) return nullptr;
  return std::make_shared<const model::Checkpoint>(*std::move(checkpoint));
}

const ops::CpuKernels* Kernels(std::string_view isa) {
  const auto kernels = ops::SelectKernels(isa);
  return kernels.ok() ? *kernels : nullptr;
}

CompileOptions Reference(std::string_view isa = "auto") {
  return {.kernels = Kernels(isa), .activations = Activations::kF32, .kv_dtype = DType::kF32};
}

size_t Argmax(absl::Span<const float> row) {
  return std::max_element(row.begin(), row.end()) - row.begin();
}

double LogSumExp(absl::Span<const float> row) {
  const double maximum = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float x : row) sum += std::exp(x - maximum);
  return maximum + std::log(sum);
}

int32_t DifferentBits(absl::Span<const float> a, absl::Span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  int32_t different = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    different += std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]);
  }
  return different;
}

// One sequence on a runner of its own.
class Model {
 public:
  Model(std::shared_ptr<const model::Checkpoint> checkpoint, CompileOptions options,
        int32_t max_tokens) {
    auto pool = std::make_unique<ThreadPool>(2);
    options.max_model_len = max_tokens;
    options.max_batch_tokens = std::min(max_tokens, 1024);
    StatusOr<plan::Plan> plan = compile::Compile(std::move(checkpoint), options, *pool);
    KVASIR_CHECK(plan.ok(), "the model compiles");
    const int32_t blocks = (max_tokens + options.block_size - 1) / options.block_size;
    StatusOr<std::unique_ptr<PlanRunner>> runner =
        PlanRunner::Create(*std::move(plan), blocks, std::move(pool));
    KVASIR_CHECK(runner.ok(), "the runner fits into memory");
    runner_ = *std::move(runner);
    for (int32_t i = 0; i < blocks; ++i) blocks_.push_back(i);
  }

  // The logits after the last of `ids`.
  std::vector<float> Prefill(absl::Span<const TokenId> ids) {
    std::vector<float> logits(runner_->vocab_size());
    const size_t most = runner_->max_batch_tokens();
    for (size_t start = 0; start < ids.size(); start += most) {
      const bool last = start + most >= ids.size();
      Batch batch;
      batch.sequences.push_back({.tokens = ids.subspan(start, most),
                                 .start = static_cast<int32_t>(start),
                                 .blocks = blocks_,
                                 .logits = last ? 1 : 0});
      const Status ran =
          runner_->Run(batch, {.logits = last ? absl::MakeSpan(logits) : absl::Span<float>()});
      EXPECT_TRUE(ran.ok()) << ran;
    }
    return logits;
  }

  // Calls visit(position, logits) for each position of `ids` from `first` on.
  void VisitLogits(absl::Span<const TokenId> ids, size_t first,
                   const std::function<void(size_t, absl::Span<const float>)>& visit) {
    const size_t vocab = runner_->vocab_size();
    for (size_t start = 0; start < ids.size(); start += kVisitedRows) {
      const absl::Span<const TokenId> part = ids.subspan(start, kVisitedRows);
      const size_t end = start + part.size();
      const size_t rows = end - std::clamp(first, start, end);
      std::vector<float> logits(rows * vocab);
      Batch batch;
      batch.sequences.push_back({.tokens = part,
                                 .start = static_cast<int32_t>(start),
                                 .blocks = blocks_,
                                 .logits = static_cast<int32_t>(rows)});
      const Status ran = runner_->Run(batch, {.logits = absl::MakeSpan(logits)});
      ASSERT_TRUE(ran.ok()) << ran;
      for (size_t i = 0; i < rows; ++i) {
        visit(end - rows + i, absl::MakeConstSpan(logits).subspan(i * vocab, vocab));
      }
    }
  }

 private:
  std::unique_ptr<PlanRunner> runner_;
  std::vector<BlockId> blocks_;
};

// ---- Tiny checkpoints ----

class TinyGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  TinyGoldenTest()
      : folder_(Golden() / "tiny" / GetParam()),
        checkpoint_(Load(folder_)),
        prompts_(ReadJson(folder_ / "golden.json")["prompts"]) {}

  // The largest difference from the 16 logits of each prompt, in units of `unit(prompt)`.
  double LargestDifference(Model& model,
                           const std::function<double(const nlohmann::json&)>& unit) const {
    double largest = 0;
    for (const auto& prompt : prompts_) {
      const auto logits = model.Prefill(prompt["ids"].get<std::vector<TokenId>>());
      for (const auto& [id, value] :
           prompt["top16"].get<std::vector<std::pair<size_t, double>>>()) {
        largest = std::max(largest, std::abs(logits.at(id) - value) / unit(prompt));
      }
    }
    return largest;
  }

  void ExpectGreedy(Model& model, const nlohmann::json& prompt) const {
    auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const auto greedy = prompt["greedy"].get<std::vector<size_t>>();
    const auto margins = prompt["margins"].get<std::vector<double>>();
    const size_t first = ids.size() - 1;
    ids.insert(ids.end(), greedy.begin(), greedy.end() - 1);
    bool clear = true;  // no step so far was a near tie
    model.VisitLogits(ids, first, [&](size_t position, absl::Span<const float> row) {
      const size_t step = position - first;
      clear = clear && margins[step] >= 2e-3;
      if (clear) {
        EXPECT_EQ(Argmax(row), greedy[step]) << "step " << step;
      }
    });
  }

  double Nll(Model& model, const std::vector<TokenId>& ids) const {
    double sum = 0;
    model.VisitLogits(ids, 0, [&](size_t position, absl::Span<const float> row) {
      if (position + 1 < ids.size()) sum += LogSumExp(row) - row[ids[position + 1]];
    });
    return sum / static_cast<double>(ids.size() - 1);
  }

  // Different bits in the logits of all prompts.
  int32_t Difference(CompileOptions a, CompileOptions b) const {
    Model first(checkpoint_, a, kMaxTokens), second(checkpoint_, b, kMaxTokens);
    int32_t different = 0;
    for (const auto& prompt : prompts_) {
      const auto ids = prompt["ids"].get<std::vector<TokenId>>();
      different += DifferentBits(first.Prefill(ids), second.Prefill(ids));
    }
    return different;
  }

  static constexpr int32_t kMaxTokens = 192;
  const std::filesystem::path folder_;
  const std::shared_ptr<const model::Checkpoint> checkpoint_;
  const nlohmann::json prompts_;
};

TEST_P(TinyGoldenTest, FloatMeetsTheReference) {
  Model model(checkpoint_, Reference(), kMaxTokens);
  const double logits = LargestDifference(model, [](const auto&) { return 1.0; });
  EXPECT_LE(logits, 1e-3);
  double nll = 0;
  for (const auto& prompt : prompts_) {
    ExpectGreedy(model, prompt);
    if (prompt["nll"].is_null()) continue;
    nll = std::max(nll, std::abs(Nll(model, prompt["ids"]) - prompt["nll"].get<double>()));
  }
  EXPECT_LE(nll, 1e-4);
  fmt::print("{}: largest difference of a logit {:.2e}, of an NLL {:.2e}\n", GetParam(), logits,
             nll);
}

TEST_P(TinyGoldenTest, Bf16KvStaysClose) {
  CompileOptions options = Reference();
  options.kv_dtype = DType::kBf16;
  Model model(checkpoint_, options, kMaxTokens);
  const double difference = LargestDifference(
      model, [](const auto& prompt) { return prompt["std"].template get<double>(); });
  EXPECT_LE(difference, 3e-2);
  fmt::print("{}: BF16 KV moves a logit by at most {:.2e} std\n", GetParam(), difference);
}

TEST_P(TinyGoldenTest, FusionChangesNoBit) {
  for (const Activations activations : {Activations::kNative, Activations::kF32}) {
    for (const DType kv : {DType::kBf16, DType::kF32}) {
      CompileOptions fused{.kernels = Kernels("auto"), .activations = activations, .kv_dtype = kv};
      CompileOptions plain = fused;
      plain.fuse = false;
      EXPECT_EQ(Difference(fused, plain), 0);
    }
  }
}

TEST_P(TinyGoldenTest, ScalarAndAvx2KernelsAgreeOnEveryBit) {
  if (Kernels("avx2") == nullptr) GTEST_SKIP() << "this machine has no AVX2";
  for (const Activations activations : {Activations::kNative, Activations::kF32}) {
    CompileOptions scalar{.kernels = Kernels("scalar"), .activations = activations};
    CompileOptions avx2 = scalar;
    avx2.kernels = Kernels("avx2");
    EXPECT_EQ(Difference(scalar, avx2), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, TinyGoldenTest,
                         testing::Values("llama", "llama_tied", "qwen2", "mistral"),
                         [](const auto& info) { return info.param; });

// ---- SmolLM2-135M-Instruct ----

class SmolLmGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "real models run in the release build";
    if (!std::filesystem::exists(DefaultModelPath())) {
      if (std::getenv("CI") == nullptr) {
        GTEST_SKIP() << DefaultModelPath() << " is not there: scripts/fetch_default_model.sh";
      }
      FAIL() << DefaultModelPath() << " is not there: scripts/fetch_default_model.sh";
    }
    checkpoint_ = Load(DefaultModelPath());
    ASSERT_NE(checkpoint_, nullptr);
  }

  struct Outcome {
    int32_t steps = 0;
    int32_t different = 0;
    double largest_margin = 0;  // of a step that differs
    double first_logit = 0;     // largest difference of a first step's five best logits
  };

  Outcome Compare(Model& model) const {
    const auto golden = ReadJson(Golden() / "smollm2-135m-instruct" / "greedy.json");
    Outcome out;
    for (const auto& item : golden["items"]) {
      auto ids = item["prompt_ids"].get<std::vector<TokenId>>();
      const auto margins = item["margins"].get<std::vector<double>>();
      auto expected = item["ids"].get<std::vector<TokenId>>();
      const size_t first = ids.size() - 1;
      ids.insert(ids.end(), expected.begin(), expected.end());
      if (margins.size() > expected.size()) {
        expected.push_back(golden["eos"]);
      } else {
        ids.pop_back();
      }
      EXPECT_EQ(margins.size(), expected.size());
      model.VisitLogits(ids, first, [&](size_t position, absl::Span<const float> row) {
        const size_t step = position - first;
        ++out.steps;
        if (step == 0) {
          for (const auto& [id, value] :
               item["first_top5"].get<std::vector<std::pair<size_t, double>>>()) {
            out.first_logit = std::max(out.first_logit, std::abs(row[id] - value));
          }
        }
        if (Argmax(row) == static_cast<size_t>(expected[step])) return;
        ++out.different;
        out.largest_margin = std::max(out.largest_margin, margins[step]);
      });
    }
    return out;
  }

  static void Print(std::string_view what, const Outcome& out) {
    fmt::print(
        "SmolLM2, {}: argmax differs at {} of {} steps, largest margin {:.3f}, first logits off by "
        "at most {:.2e}\n",
        what, out.different, out.steps, out.largest_margin, out.first_logit);
  }

  std::shared_ptr<const model::Checkpoint> checkpoint_;
};

TEST_F(SmolLmGoldenTest, Int8GreedyStepsStayWithinTheMargin) {
  Model model(checkpoint_, {.kernels = Kernels("auto")}, 1024);
  const Outcome out = Compare(model);
  Print("int8", out);
  EXPECT_EQ(out.steps, 554);
  EXPECT_LE(out.largest_margin, 0.7);
  EXPECT_LE(out.different, out.steps * 4 / 100);
}

TEST_F(SmolLmGoldenTest, FloatGreedyStepsEqualTheReference) {
  Model model(checkpoint_, Reference(), 1024);
  const Outcome out = Compare(model);
  Print("float32", out);
  EXPECT_EQ(out.steps, 554);
  EXPECT_LE(out.largest_margin, 0.05);
  EXPECT_LE(out.first_logit, 1e-3);
}

// All 4,096 tokens with KVASIR_LONG_TESTS, else the first 512.
TEST_F(SmolLmGoldenTest, Int8MeanNllIsThatOfTheReference) {
  const auto golden = ReadJson(Golden() / "smollm2-135m-instruct" / "perplexity.json");
  const StatusOr<ServedModel> served =
      LoadModel({.path = DefaultModelPath(), .kv_cache_bytes = 1 << 24, .max_batch_tokens = 64});
  ASSERT_TRUE(served.ok()) << served.status();
  auto ids = *served->tokenizer->Encode(ReadText(Golden() / "text" / "sonnets.txt"), false);
  ASSERT_GE(ids.size(), 4096u);
  ids.resize(4096);
  std::string digest;
  uint8_t sha[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const uint8_t*>(ids.data()), ids.size() * sizeof(TokenId), sha);
  for (uint8_t byte : sha) digest += fmt::format("{:02x}", byte);
  ASSERT_EQ(digest, golden["ids_sha256"]);

  if (!LongTests()) ids.resize(512);
  Model model(checkpoint_, {.kernels = Kernels("auto")}, static_cast<int32_t>(ids.size()));
  std::vector<double> chunks(ids.size() / 128);
  double sum = 0;
  model.VisitLogits(ids, 0, [&](size_t position, absl::Span<const float> row) {
    if (position + 1 == ids.size()) return;
    const double nll = LogSumExp(row) - row[ids[position + 1]];
    sum += nll;
    chunks[(position + 1) / 128] += nll;
  });
  const double mean = sum / static_cast<double>(ids.size() - 1);
  double largest = 0, reference = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const double tokens = i == 0 ? 127 : 128;
    const double expected = golden["chunk_mean_nll"][i];
    largest = std::max(largest, std::abs(chunks[i] / tokens - expected));
    reference += expected * tokens / static_cast<double>(ids.size() - 1);
  }
  fmt::print(
      "SmolLM2, int8: mean NLL of {} tokens {:.5f}, reference {:.5f}, largest difference of a "
      "chunk {:.4f}\n",
      ids.size(), mean, reference, largest);
  EXPECT_NEAR(mean, reference, LongTests() ? 0.01 : 0.05);
  EXPECT_LE(largest, 0.05);
}

TEST_F(SmolLmGoldenTest, KernelFamiliesAndFusionAgreeOnEveryBit) {
  const auto golden = ReadJson(Golden() / "smollm2-135m-instruct" / "greedy.json");
  auto ids = golden["items"][0]["prompt_ids"].get<std::vector<TokenId>>();
  ids.resize(12);  // the scalar kernels are slow
  const auto logits = [&](std::string_view isa, bool fuse) {
    return Model(checkpoint_, {.kernels = Kernels(isa), .fuse = fuse}, 64).Prefill(ids);
  };
  const auto scalar = logits("scalar", true);
  EXPECT_EQ(DifferentBits(logits("auto", true), logits("auto", false)), 0);
  if (Kernels("avx2") != nullptr) {
    EXPECT_EQ(DifferentBits(scalar, logits("avx2", true)), 0);
  }
}

}  // namespace
}  // namespace kvasir::cli
