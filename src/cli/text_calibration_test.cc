#include "cli/text_calibration.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "cli/testing/golden.h"
#include "cli/testing/whole_model.h"

namespace kvasir::cli {
namespace {

std::vector<TokenId> RandomTokens(int32_t count, int32_t vocab) {
  std::mt19937 random(1);
  std::vector<TokenId> out(count);
  for (TokenId& id : out) id = static_cast<TokenId>(random() % vocab);
  return out;
}

std::unique_ptr<TextCalibration> Calibrate(const std::shared_ptr<const model::Checkpoint>& model,
                                           int32_t tokens) {
  auto out = TextCalibration::Create(model, RandomTokens(tokens, model->config.vocab),
                                     {.kernels = Kernels("auto")}, 2);
  EXPECT_TRUE(out.ok()) << out.status();
  return *std::move(out);
}

TEST(TextCalibrationTest, KnowsWhatEachProductReads) {
  const auto checkpoint = Load(Golden() / "tiny" / "llama");
  const auto calibration = Calibrate(checkpoint, 400);
  const auto weights = compile::ProductWeights(*checkpoint, {.kernels = Kernels("auto")});
  ASSERT_TRUE(weights.ok());
  int products = 0;
  for (const auto& names : *weights) {
    for (const std::string& name : names) {
      const auto factor = calibration->FactorOf(name);
      ASSERT_TRUE(factor.ok()) << factor.status();
      ASSERT_NE(*factor, nullptr) << name;
      EXPECT_EQ((*factor)->cols(), checkpoint->Find(name)->cols) << name;
      EXPECT_GT((*factor)->row(0)[0], 0.0f) << name;
      ++products;
    }
  }
  EXPECT_GT(products, 7);
  EXPECT_EQ(*calibration->FactorOf("no such"), nullptr);
}

TEST(TextCalibrationTest, LeavesExpertsOut) {
  const auto calibration = Calibrate(Load(Golden() / "tiny" / "mixtral"), 300);
  EXPECT_NE(*calibration->FactorOf("blk.0.attn_q.weight"), nullptr);
  EXPECT_EQ(*calibration->FactorOf("blk.0.ffn_gate_exps.weight"), nullptr);
}

TEST(TextCalibrationTest, RefusesAFewWords) {
  const auto checkpoint = Load(Golden() / "tiny" / "llama");
  const auto few =
      TextCalibration::Create(checkpoint, RandomTokens(20, 50), {.kernels = Kernels("auto")}, 1);
  EXPECT_EQ(few.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TextCalibrationTest, BringsTheRoundedModelCloser) {
  const auto checkpoint = Load(Golden() / "tiny" / "llama");
  const std::vector<TokenId> ids = RandomTokens(64, checkpoint->config.vocab);
  const std::vector<float> exact = Model(checkpoint, Reference(), 128).Prefill(ids);
  const auto off = [&](compile::Calibration* calibration) {
    const compile::CompileOptions options{.kernels = Kernels("auto"),
                                          .weights = compile::Weights::kInt4,
                                          .group_size = 32,
                                          .calibration = calibration,
                                          .kv_type = ops::KvType::kF32};
    const std::vector<float> logits = Model(checkpoint, options, 128).Prefill(ids);
    double sum = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      sum += (logits[i] - exact[i]) * (logits[i] - exact[i]);
    }
    return std::sqrt(sum / static_cast<double>(exact.size()));
  };
  const double alone = off(nullptr), calibrated = off(Calibrate(checkpoint, 2048).get());
  EXPECT_LT(calibrated, alone);
  fmt::print("deviation of logits: {:.3g} calibrated, {:.3g} alone\n", calibrated, alone);
}

}  // namespace
}  // namespace kvasir::cli
