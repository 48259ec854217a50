#include <cmath>

#include <fmt/format.h>

#include "model/architecture.h"

namespace kvasir::model {
namespace {

using graph::Graph;
using graph::Node;
using graph::Op;
using graph::Operand;
using graph::Rows;

// Builds the graph while checking the tensors that it names; the first failure is kept.
class Builder {
 public:
  explicit Builder(const Checkpoint& checkpoint) : checkpoint_(checkpoint), c_(checkpoint.config) {}

  StatusOr<Graph> Build() {
    CheckTensor("token_embd.weight", c_.vocab, c_.hidden);
    Operand x = graph_.Append({.op = Op::kEmbed, .weights = {"token_embd.weight"}}, "x", c_.hidden);
    for (int32_t layer = 0; layer < c_.layers; ++layer) x = Layer(x, layer);
    x = graph_.Append({.op = Op::kSelectRows, .inputs = {x}}, "last", c_.hidden, Rows::kOutput);
    x = Norm(x, "output_norm.weight", "final", Rows::kOutput);
    // Without an output matrix of its own the model reuses the embedding.
    const bool tied = checkpoint_.Find("output.weight") == nullptr;
    const std::string head = tied ? "token_embd.weight" : "output.weight";
    graph_.logits = Project(x, {head}, c_.vocab, "logits", Rows::kOutput).value;
    KVASIR_RETURN_IF_ERROR(status_);
    return std::move(graph_);
  }

 private:
  Operand Layer(const Operand& x, int32_t layer) {
    const std::string p = fmt::format("blk.{}.", layer);
    const int32_t q_width = c_.heads * c_.head_dim;
    const int32_t kv_width = c_.kv_heads * c_.head_dim;
    const Operand h = Norm(x, p + "attn_norm.weight", p + "h");
    Operand q = Project(h, {p + "attn_q.weight"}, q_width, p + "q");
    Operand k = Project(h, {p + "attn_k.weight"}, kv_width, p + "k");
    const Operand v = Project(h, {p + "attn_v.weight"}, kv_width, p + "v");
    q = graph_.Append({.op = Op::kRope, .inputs = {q}, .layer = layer}, p + "q.rot", q_width);
    k = graph_.Append({.op = Op::kRope, .inputs = {k}, .layer = layer}, p + "k.rot", kv_width);
    const float scale = 1.0f / std::sqrt(static_cast<float>(c_.head_dim));
    q = graph_.Append({.op = Op::kScale, .inputs = {q}, .layer = layer, .scale = scale},
                      p + "q.scaled", q_width);
    graph_.nodes.push_back({.op = Op::kKvWrite, .inputs = {k, v}, .layer = layer});
    const Operand o =
        graph_.Append({.op = Op::kAttention, .inputs = {q}, .layer = layer}, p + "o", q_width);
    const Operand attended =
        Add(x, Project(o, {p + "attn_output.weight"}, c_.hidden, p + "proj"), p + "x.mid");
    return Add(attended, FeedForward(attended, p), p + "x.out");
  }

  Operand FeedForward(const Operand& x, const std::string& p) {
    const Operand h = Norm(x, p + "ffn_norm.weight", p + "h2");
    const Operand gate = Project(h, {p + "ffn_gate.weight"}, c_.ffn, p + "gate");
    const Operand up = Project(h, {p + "ffn_up.weight"}, c_.ffn, p + "up");
    const Operand silu = graph_.Append({.op = Op::kSilu, .inputs = {gate}}, p + "silu", c_.ffn);
    const Operand act = graph_.Append({.op = Op::kMul, .inputs = {silu, up}}, p + "act", c_.ffn);
    return Project(act, {p + "ffn_down.weight"}, c_.hidden, p + "down");
  }

  Operand Norm(const Operand& x, const std::string& weight, const std::string& name,
               Rows rows = Rows::kTokens) {
    CheckTensor(weight, 1, c_.hidden);
    return graph_.Append({.op = Op::kRmsNorm, .inputs = {x}, .weights = {weight}}, name, c_.hidden,
                         rows);
  }

  Operand Project(const Operand& x, std::vector<std::string> weights, int32_t width,
                  const std::string& name, Rows rows = Rows::kTokens) {
    CheckTensor(weights[0], width, x.width);
    std::string bias = weights[0].substr(0, weights[0].rfind('.')) + ".bias";
    checkpoint_.Find(bias) != nullptr ? CheckTensor(bias, 1, width) : bias.clear();
    return graph_.Append({.op = Op::kMatmul,
                          .inputs = {x},
                          .weights = std::move(weights),
                          .biases = {std::move(bias)}},
                         name, width, rows);
  }

  Operand Add(const Operand& a, const Operand& b, const std::string& name) {
    return graph_.Append({.op = Op::kAdd, .inputs = {a, b}}, name, a.width);
  }

  void CheckTensor(const std::string& name, int64_t rows, int64_t cols) {
    if (!status_.ok()) return;
    const TensorView* tensor = checkpoint_.Find(name);
    if (tensor == nullptr) {
      status_ = absl::InvalidArgumentError(fmt::format("tensor '{}' is missing", name));
    } else if (tensor->rows != rows || tensor->cols != cols) {
      status_ = absl::InvalidArgumentError(
          fmt::format("tensor '{}' has shape [{}, {}] but the configuration asks for [{}, {}]",
                      name, tensor->rows, tensor->cols, rows, cols));
    }
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& c_;
  Graph graph_;
  Status status_;
};

}  // namespace

StatusOr<Graph> BuildLlama(const Checkpoint& checkpoint) { return Builder(checkpoint).Build(); }

}  // namespace kvasir::model
