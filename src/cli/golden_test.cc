// Real models against a float32 reference: tests/data/golden.
//
// Qwen2.5-Coder-0.5B-Instruct is tested with KVASIR_LONG_TESTS, where KVASIR_QWEN_MODEL names its
// file or scripts/fetch_qwen_model.sh has put it into the cache folder.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "cli/cache_dir.h"
#include "cli/served_model.h"
#include "cli/testing/golden.h"
#include "cli/testing/whole_model.h"

namespace kvasir::cli {
namespace {

class RealGoldenTest : public testing::Test {
 protected:
  // `name` is that of the folder of golden values.
  explicit RealGoldenTest(std::string name) : name_(std::move(name)), golden_(Golden() / name_) {}

  struct Outcome {
    int32_t steps = 0;
    int32_t different = 0;
    double largest_margin = 0;  // of a step that differs
    double first_logit = 0;     // largest difference of a first step's five best logits
  };

  Outcome CompareGreedy(Model& model) const {
    const auto golden = ReadJson(golden_ / "greedy.json");
    Outcome out;
    for (const auto& item : golden["items"]) CompareItem(model, item, golden["eos"], out);
    return out;
  }

  void Print(std::string_view what, const Outcome& out) const {
    fmt::print(
        "{}, {}: argmax differs at {} of {} steps, largest margin {:.3f}, first logits off by at "
        "most {:.2e}\n",
        name_, what, out.different, out.steps, out.largest_margin, out.first_logit);
  }

  // The first `count` of the 4,096 tokens of the golden text, which the model's tokenizer makes.
  std::vector<TokenId> TextIds(const std::filesystem::path& model, size_t count) const {
    const StatusOr<ServedModel> served =
        LoadModel({.path = model.string(), .kv_cache_bytes = 1 << 24, .max_batch_tokens = 64});
    KVASIR_CHECK(served.ok(), "the model loads");
    auto ids = *served->tokenizer->Encode(ReadText(Golden() / "text" / "sonnets.txt"), false);
    ids.resize(4096);
    std::string digest;
    uint8_t sha[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const uint8_t*>(ids.data()), ids.size() * sizeof(TokenId), sha);
    for (const uint8_t byte : sha) digest += fmt::format("{:02x}", byte);
    EXPECT_EQ(digest, ReadJson(golden_ / "perplexity.json")["ids_sha256"].get<std::string>());
    ids.resize(count);
    return ids;
  }

  void ExpectInt8Greedy(int32_t steps) const {
    Model model(checkpoint_, {.kernels = Kernels("auto")}, 1024);
    const Outcome out = CompareGreedy(model);
    Print("int8", out);
    EXPECT_EQ(out.steps, steps);
    EXPECT_LE(out.largest_margin, 0.7);
    EXPECT_LE(out.different, out.steps * 4 / 100);
  }

  void ExpectFloatGreedy(int32_t steps) const {
    Model model(checkpoint_, Reference(), 1024);
    const Outcome out = CompareGreedy(model);
    Print("float32", out);
    EXPECT_EQ(out.steps, steps);
    EXPECT_LE(out.largest_margin, 0.05);
    EXPECT_LE(out.first_logit, 1e-3);
  }

  // Expects the mean NLL of `ids` within `bound` of the reference's, and each chunk's within 0.05.
  void ExpectNll(Model& model, absl::Span<const TokenId> ids, double bound) const {
    const auto golden = ReadJson(golden_ / "perplexity.json");
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
        "{}, int8: mean NLL of {} tokens {:.5f}, reference {:.5f}, largest difference of a chunk "
        "{:.4f}\n",
        name_, ids.size(), mean, reference, largest);
    EXPECT_NEAR(mean, reference, bound);
    EXPECT_LE(largest, 0.05);
  }

  const std::string name_;
  const std::filesystem::path golden_;
  std::shared_ptr<const model::Checkpoint> checkpoint_;

 private:
  static void CompareItem(Model& model, const nlohmann::json& item, TokenId eos, Outcome& out) {
    auto ids = item["prompt_ids"].get<std::vector<TokenId>>();
    const auto margins = item["margins"].get<std::vector<double>>();
    auto expected = item["ids"].get<std::vector<TokenId>>();
    const size_t first = ids.size() - 1;
    ids.insert(ids.end(), expected.begin(), expected.end());
    if (margins.size() > expected.size()) {
      expected.push_back(eos);
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
};

// ---- SmolLM2-135M-Instruct ----

class SmolLmGoldenTest : public RealGoldenTest {
 protected:
  SmolLmGoldenTest() : RealGoldenTest("smollm2-135m-instruct") {}

  void SetUp() override {
    checkpoint_ = LoadDefaultModel();
    ASSERT_TRUE(IsSkipped() || checkpoint_ != nullptr);
  }
};

TEST_F(SmolLmGoldenTest, Int8GreedyStepsStayWithinTheMargin) { ExpectInt8Greedy(554); }

TEST_F(SmolLmGoldenTest, FloatGreedyStepsEqualTheReference) { ExpectFloatGreedy(554); }

// All 4,096 tokens with KVASIR_LONG_TESTS, else the first 512.
TEST_F(SmolLmGoldenTest, Int8MeanNllIsThatOfTheReference) {
  const auto ids = TextIds(DefaultModelPath(), LongTests() ? 4096 : 512);
  Model model(checkpoint_, {.kernels = Kernels("auto")}, static_cast<int32_t>(ids.size()));
  ExpectNll(model, ids, LongTests() ? 0.01 : 0.05);
}

TEST_F(SmolLmGoldenTest, KernelFamiliesAndFusionAgreeOnEveryBit) {
  auto ids =
      ReadJson(golden_ / "greedy.json")["items"][0]["prompt_ids"].get<std::vector<TokenId>>();
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

// ---- Qwen2.5-Coder-0.5B-Instruct: biases, Q5_0 and K-quants ----

class QwenGoldenTest : public RealGoldenTest {
 protected:
  QwenGoldenTest() : RealGoldenTest("qwen2.5-coder-0.5b-instruct") {}

  void SetUp() override {
    if (kSanitized || !LongTests()) GTEST_SKIP() << "runs with KVASIR_LONG_TESTS, not sanitized";
    const char* named = std::getenv("KVASIR_QWEN_MODEL");
    path_ = named != nullptr ? std::filesystem::path(named)
                             : CacheDir() / "models" / (name_ + "-q4_k_m.gguf");
    if (!std::filesystem::exists(path_)) {
      GTEST_SKIP() << path_ << " is not there: scripts/fetch_qwen_model.sh";
    }
    checkpoint_ = Load(path_);
    ASSERT_NE(checkpoint_, nullptr);
  }

  std::filesystem::path path_;
};

TEST_F(QwenGoldenTest, Int8GreedyStepsStayWithinTheMargin) { ExpectInt8Greedy(495); }

TEST_F(QwenGoldenTest, FloatGreedyStepsEqualTheReference) { ExpectFloatGreedy(495); }

TEST_F(QwenGoldenTest, Int8MeanNllIsThatOfTheReference) {
  const auto ids = TextIds(path_, 4096);
  Model model(checkpoint_, {.kernels = Kernels("auto")}, static_cast<int32_t>(ids.size()));
  ExpectNll(model, ids, 0.01);
}

}  // namespace
}  // namespace kvasir::cli
