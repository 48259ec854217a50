// The real path, files to logits, for comparison with the values of tests/data/golden. Everything
// is compared teacher-forced, because a free-running continuation parts for good at the first tie.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/check.h"
#include "compile/compiler.h"
#include "model/checkpoint.h"
#include "ops/cpu/dispatch.h"
#include "runtime/device_runner.h"
#include "runtime/plan_runner.h"

namespace kvasir::cli {

inline std::filesystem::path Golden() { return std::filesystem::path(KVASIR_TEST_DATA) / "golden"; }

inline std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline nlohmann::json ReadJson(const std::filesystem::path& path) {
  return nlohmann::json::parse(ReadText(path));
}

inline const ops::CpuKernels* Kernels(std::string_view isa) {
  const auto kernels = ops::SelectKernels(isa);
  return kernels.ok() ? *kernels : nullptr;
}

inline compile::CompileOptions Reference(std::string_view isa = "auto") {
  return {.kernels = Kernels(isa),
          .activations = compile::Activations::kF32,
          .kv_type = ops::KvType::kF32};
}

inline size_t Argmax(absl::Span<const float> row) {
  return std::max_element(row.begin(), row.end()) - row.begin();
}

inline double LogSumExp(absl::Span<const float> row) {
  const double maximum = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float x : row) sum += std::exp(x - maximum);
  return maximum + std::log(sum);
}

inline int32_t DifferentBits(absl::Span<const float> a, absl::Span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  int32_t different = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    different += std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]);
  }
  return different;
}

// One sequence on a runner of its own; logits of every position that a test asks for.
class Model {
 public:
  Model(std::shared_ptr<const model::Checkpoint> checkpoint, compile::CompileOptions options,
        int32_t max_tokens) {
    auto pool = std::make_unique<ThreadPool>(2);
    SetLimits(options, max_tokens);
    StatusOr<plan::Plan> plan = compile::Compile(std::move(checkpoint), options, *pool);
    Start(std::move(plan), std::move(pool));
  }
  // On a device; `recorded_rows` are those of decodes that it records.
  Model(std::shared_ptr<const model::Checkpoint> checkpoint, int32_t max_tokens,
        ops::Accelerator accelerator, int32_t recorded_rows) {
    compile::CompileOptions options{.kernels = Kernels("auto"),
                                    .activations = compile::Activations::kBf16};
    SetLimits(options, max_tokens);
    auto pool = std::make_unique<ThreadPool>(2);
    StatusOr<plan::Plan> plan = compile::Compile(std::move(checkpoint), options, *pool);
    KVASIR_CHECK(plan.ok(), "the model compiles");
    const int32_t blocks = BlocksOf(*plan);
    const runtime::DeviceOptions device{.num_blocks = blocks, .max_recorded_rows = recorded_rows};
    Own(runtime::DeviceRunner::Create(*std::move(plan), device, std::move(pool),
                                      std::move(accelerator)),
        blocks);
  }
  Model(plan::CompiledModel model, compile::CompileOptions options, int32_t max_tokens) {
    SetLimits(options, max_tokens);
    Start(compile::MakePlan(std::move(model), options), std::make_unique<ThreadPool>(2));
  }

  // The logits after the last of `ids`, computed in chunks of `most` tokens (0: as large as may
  // be).
  std::vector<float> Prefill(absl::Span<const TokenId> ids, size_t most = 0) {
    std::vector<float> logits(runner_->vocab_size());
    if (most == 0) most = runner_->max_batch_tokens();
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

  // The best token after the last of `ids`.
  TokenId Best(absl::Span<const TokenId> ids) {
    TokenId best = -1;
    Batch batch;
    batch.sequences.push_back({.tokens = ids, .blocks = blocks_, .logits = 1, .draw = RowDraw{}});
    const Status ran = runner_->Run(batch, {.drawn = absl::MakeSpan(&best, 1)});
    EXPECT_TRUE(ran.ok()) << ran;
    return best;
  }

  // The same in one pass with another sequence, which comes first in the batch.
  std::vector<float> PrefillBeside(absl::Span<const TokenId> other, absl::Span<const TokenId> ids) {
    const size_t half = blocks_.size() / 2;
    std::vector<float> logits(runner_->vocab_size());
    Batch batch;
    batch.sequences.push_back({.tokens = other, .blocks = {blocks_.data(), half}});
    batch.sequences.push_back(
        {.tokens = ids, .blocks = {blocks_.data() + half, blocks_.size() - half}, .logits = 1});
    const Status ran = runner_->Run(batch, {.logits = absl::MakeSpan(logits)});
    EXPECT_TRUE(ran.ok()) << ran;
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
  static constexpr size_t kVisitedRows = 64;  // of logits at a time

  static void SetLimits(compile::CompileOptions& options, int32_t max_tokens) {
    options.max_model_len = max_tokens;
    options.max_batch_tokens = std::min(max_tokens, 1024);
  }

  void Start(StatusOr<plan::Plan> plan, std::unique_ptr<ThreadPool> pool) {
    KVASIR_CHECK(plan.ok(), "the model compiles");
    const int32_t blocks = BlocksOf(*plan);
    Own(runtime::PlanRunner::Create(*std::move(plan), blocks, std::move(pool)), blocks);
  }

  static int32_t BlocksOf(const plan::Plan& plan) {
    return (plan.max_model_len + plan.kv.block_size - 1) / plan.kv.block_size;
  }

  template <class Runner>
  void Own(StatusOr<std::unique_ptr<Runner>> runner, int32_t blocks) {
    EXPECT_TRUE(runner.ok()) << runner.status();
    KVASIR_CHECK(runner.ok(), "the runner starts");
    runner_ = *std::move(runner);
    for (int32_t i = 0; i < blocks; ++i) blocks_.push_back(i);
  }

  std::unique_ptr<runtime::Runner> runner_;
  std::vector<BlockId> blocks_;
};

}  // namespace kvasir::cli
