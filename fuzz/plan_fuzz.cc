// The reader of plans on arbitrary bytes: what it accepts is run for a few tokens.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "compile/compiler.h"
#include "ops/cpu/dispatch.h"
#include "plan/plan_file.h"
#include "runtime/plan_runner.h"

namespace {

constexpr int64_t kMostBytes = 64 << 20;  // of memory that a plan may ask for here
constexpr int32_t kTokens = 16;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  // Sections are aligned to pages of the file, which the fuzzer's buffer need not be.
  const std::unique_ptr<uint8_t, void (*)(void*)> copy(
      static_cast<uint8_t*>(std::aligned_alloc(4096, (size + 4096) / 4096 * 4096)), &std::free);
  std::copy_n(data, size, copy.get());
  auto file = plan::ParsePlan({copy.get(), size});
  if (!file.ok()) return 0;
  compile::CompileOptions options;
  options.kernels = ops::SelectKernels("scalar").value();
  options.max_model_len = std::min(file->model.context_length, 2 * kTokens);
  options.max_batch_tokens = kTokens;
  auto plan = compile::MakePlan(std::move(file->model), options);
  if (!plan.ok() || plan->arena_bytes > kMostBytes || plan->kv.block_bytes() > kMostBytes / 4 ||
      int64_t{plan->vocab} * kTokens > kMostBytes) {
    return 0;
  }
  auto runner = runtime::PlanRunner::Create(*std::move(plan), 2, std::make_unique<ThreadPool>(1));
  if (!runner.ok()) return 0;
  // A full batch of two sequences: rows reach the end of every value.
  const int32_t half = std::min((*runner)->plan().max_model_len, kTokens / 2);
  const std::vector<TokenId> tokens(half, 0);
  const std::vector<BlockId> first = {0}, second = {1};
  std::vector<float> logits((half + 1) * int64_t{(*runner)->vocab_size()});
  Batch batch;
  batch.sequences.push_back({.tokens = tokens, .blocks = first, .logits = half});
  batch.sequences.push_back({.tokens = tokens, .blocks = second, .logits = 1});
  (*runner)->Run(batch, {.logits = absl::MakeSpan(logits)}).IgnoreError();
  return 0;
}
