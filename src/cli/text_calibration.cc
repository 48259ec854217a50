#include "cli/text_calibration.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "core/block_hash.h"

namespace kvasir::cli {
namespace {

using graph::Op;
using graph::ValueId;

constexpr int64_t kMomentBytes = int64_t{2} << 30;
constexpr int32_t kWindow = 512;    // tokens that the model sees of the text at a time
constexpr int32_t kHeadRows = 128;  // of them, from the end, that it predicts a token after
constexpr size_t kFewestTokens = 256;

// Brings each row to a mean square of 1, so that all tokens count alike: what a product reads of a
// text's first tokens can be thousands of times larger than what it reads of the others, and alone
// would decide the rounding.
void ScaleRows(int64_t cols, std::vector<float>& rows) {
  for (auto row = rows.begin(); row != rows.end(); row += cols) {
    const double sum = std::inner_product(row, row + cols, row, 0.0);
    if (sum == 0) continue;
    const double factor = std::isfinite(sum) ? std::sqrt(static_cast<double>(cols) / sum) : 0;
    std::transform(row, row + cols, row, [factor](float x) {
      return factor == 0 ? 0.0f : static_cast<float>(factor * x);
    });
  }
}

int64_t BytesOf(int64_t cols) { return cols * cols * static_cast<int64_t>(sizeof(float)); }

}  // namespace

StatusOr<std::unique_ptr<TextCalibration>> TextCalibration::Create(
    std::shared_ptr<const model::Checkpoint> checkpoint, std::vector<TokenId> tokens,
    const compile::CompileOptions& options, int threads) {
  if (tokens.size() < kFewestTokens) {
    return absl::InvalidArgumentError(fmt::format(
        "calibrate: the text has {} tokens, fewer than {}", tokens.size(), kFewestTokens));
  }
  compile::CompileOptions stored{.kernels = options.kernels};
  stored.max_model_len = std::min(kWindow, checkpoint->config.context_length);
  stored.max_batch_tokens = kWindow;
  KVASIR_ASSIGN_OR_RETURN(const auto weights, compile::ProductWeights(*checkpoint, stored));
  auto pool = std::make_unique<ThreadPool>(threads);
  KVASIR_ASSIGN_OR_RETURN(plan::Plan plan, compile::Compile(std::move(checkpoint), stored, *pool));
  const int32_t blocks = (plan.max_model_len + plan.kv.block_size - 1) / plan.kv.block_size;
  KVASIR_ASSIGN_OR_RETURN(auto runner,
                          runtime::PlanRunner::Create(std::move(plan), blocks, std::move(pool)));
  std::unique_ptr<TextCalibration> out(new TextCalibration(std::move(runner), std::move(tokens)));
  out->FindProducts(weights);
  return out;
}

void TextCalibration::FindProducts(const std::vector<std::vector<std::string>>& weights) {
  const plan::Plan& plan = runner_->plan();
  std::vector<bool> ordered(plan.values.size(), false);
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    const plan::PlanNode& node = plan.nodes[i];
    if (node.op == Op::kQuantize && node.order >= 0) ordered[node.output] = true;
    if (node.op != Op::kMatmul || ordered[node.inputs[0].value]) continue;
    for (const std::string& weight : weights[i]) node_of_[weight] = i;
  }
}

std::string TextCalibration::id() const {
  const std::string bytes(reinterpret_cast<const char*>(tokens_.data()),
                          tokens_.size() * sizeof(TokenId));
  return fmt::format("text {} in windows of {}", CacheRoot(bytes, "", "", "").Hex(),
                     runner_->plan().max_model_len);
}

StatusOr<const ops::RoundingFactor*> TextCalibration::FactorOf(const std::string& weight) {
  const auto it = node_of_.find(weight);
  if (it == node_of_.end()) return nullptr;
  const ValueId value = runner_->plan().nodes[it->second].inputs[0].value;
  if (value == factor_of_) return &*factor_;
  if (!moments_.contains(value)) KVASIR_RETURN_IF_ERROR(Read(it->second));
  auto moments = moments_.extract(value);
  factor_.emplace(moments.mapped(), runner_->pool());
  factor_of_ = value;
  return &*factor_;
}

// Keeps what the products from a node on read, as many as there is room for.
Status TextCalibration::Read(size_t first_node) {
  const plan::Plan& plan = runner_->plan();
  moments_.clear();
  bool head = false;
  int64_t bytes = 0;
  for (size_t i = first_node; i < plan.nodes.size(); ++i) {
    if (plan.nodes[i].op != Op::kMatmul) continue;
    const ValueId value = plan.nodes[i].inputs[0].value;
    const int64_t cols = plan.values[value].width;
    if (moments_.contains(value)) continue;
    if (bytes > 0 && bytes + BytesOf(cols) > kMomentBytes) break;
    bytes += BytesOf(cols);
    moments_.emplace(value, cols);
    head = head || plan.nodes[i].output == plan.logits;
  }
  // A value that several products read is shown by the first of them.
  std::map<ValueId, size_t> shown_by;
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    if (plan.nodes[i].op == Op::kMatmul) shown_by.emplace(plan.nodes[i].inputs[0].value, i);
  }
  runner_->ObserveProducts([&](size_t node, const float* rows, int64_t count) {
    const ValueId value = plan.nodes[node].inputs[0].value;
    const auto moments = moments_.find(value);
    if (moments == moments_.end() || shown_by.at(value) != node) return;
    std::vector<float> scaled(rows, rows + count * plan.values[value].width);
    ScaleRows(plan.values[value].width, scaled);
    moments->second.Add(scaled.data(), count, *plan.kernels, runner_->pool());
  });
  std::vector<BlockId> blocks(runner_->num_blocks());
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<float> logits;
  Status ran;
  const absl::Span<const TokenId> all(tokens_);
  for (size_t begin = 0; begin < all.size() && ran.ok(); begin += plan.max_model_len) {
    const absl::Span<const TokenId> ids = all.subspan(begin, plan.max_model_len);
    const int32_t rows = head ? std::min(kHeadRows, static_cast<int32_t>(ids.size())) : 0;
    logits.resize(static_cast<size_t>(rows) * plan.vocab);
    Batch batch;
    batch.sequences.push_back({.tokens = ids, .blocks = blocks, .logits = rows});
    ran = runner_->Run(batch, {.logits = absl::MakeSpan(logits)});
  }
  runner_->ObserveProducts(nullptr);
  return ran;
}

}  // namespace kvasir::cli
