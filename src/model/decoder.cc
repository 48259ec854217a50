#include "model/decoder.h"

#include <cmath>
#include <utility>

#include <fmt/format.h>

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
    CheckEmbedding();
    Operand x = graph_.Append({.op = Op::kEmbed, .weights = {"token_embd.weight"}}, "x", c_.hidden);
    if (c_.embedding_scale != 1.0f) x = Scale(x, c_.embedding_scale, "x.scaled");
    for (layer_ = 0; layer_ < c_.layers && status_.ok(); ++layer_) x = Layer(x);
    x = graph_.Append({.op = Op::kSelectRows, .inputs = {x}}, "last", c_.hidden, Rows::kOutput);
    x = Norm(x, "output_norm", "final", Rows::kOutput);
    // Without an output matrix of its own the model reuses the embedding.
    const bool tied = checkpoint_.Find("output.weight") == nullptr && !c_.own_head;
    graph_.logits =
        Project(x, tied ? "token_embd" : "output", c_.vocab, "logits", Rows::kOutput).value;
    graph_.nodes.back().softcap = c_.logit_softcap;
    KVASIR_RETURN_IF_ERROR(status_);
    return std::move(graph_);
  }

 private:
  std::string Of(const std::string& name) const { return fmt::format("blk.{}.{}", layer_, name); }

  Operand Layer(const Operand& x) {
    const Operand h = Norm(x, Of("attn_norm"), Of("h"));
    Operand attended = c_.latent.rank > 0 ? LatentAttention(h) : Attention(h);
    attended = PostNorm(attended, "post_attention_norm");
    const Operand mid = Add(x, attended, Of("x.mid"));
    const Operand h2 = Norm(mid, Of("ffn_norm"), Of("h2"));
    Operand out = c_.HasExperts(layer_) ? Experts(h2) : FeedForward(h2, "", c_.ffn);
    out = Add(mid, PostNorm(out, "post_ffw_norm"), Of("x.out"));
    if (!c_.HasExperts(layer_) || c_.moe.shared_ffn == 0) return out;
    return Add(out, FeedForward(h2, "_shexp", c_.moe.shared_ffn), Of("x.shared"));
  }

  // ---- Attention ----

  Operand Attention(const Operand& h) {
    const int32_t q_width = c_.heads * c_.head_dim;
    const int32_t kv_width = c_.kv_heads * c_.head_dim;
    Operand q = Project(h, Of("attn_q"), q_width, Of("q"));
    Operand k = Project(h, Of("attn_k"), kv_width, Of("k"));
    const Operand v = Project(h, Of("attn_v"), kv_width, Of("v"));
    q = HeadNorm(q, "attn_q_norm");
    k = HeadNorm(k, "attn_k_norm");
    q = Rotate(q, Of("q.rot"));
    k = Rotate(k, Of("k.rot"));
    q = Scale(q, QueryScale(), Of("q.scaled"));
    graph_.nodes.push_back({.op = Op::kKvWrite, .inputs = {k, v}, .layer = layer_});
    return Project(Attend(q, q_width), Of("attn_output"), c_.hidden, Of("proj"));
  }

  float QueryScale() const {
    if (c_.query_scale != 0.0f) return c_.query_scale;
    return 1.0f / std::sqrt(static_cast<float>(c_.head_dim));
  }

  Operand Attend(const Operand& q, int32_t width) {
    Node node{.op = Op::kAttention, .inputs = {q}, .layer = layer_};
    if (c_.HasWindow(layer_)) node.window = c_.sliding_window;
    node.softcap = c_.attention_softcap;
    const std::string sinks = Of("attn_sinks.weight");
    if (checkpoint_.Find(sinks) != nullptr) {
      CheckTensor(sinks, 1, c_.heads);
      node.weights = {sinks};
    }
    return graph_.Append(std::move(node), Of("o"), width);
  }

  // Latent attention in its absorbed form (DeepSeek-AI, DeepSeek-V2): the cache holds a token's
  // latent and its rotated key, which all heads share; a head's query is multiplied into the space
  // of the latent, and what it attends to out of it.
  Operand LatentAttention(const Operand& h) {
    const LatentConfig& l = c_.latent;
    const int32_t head = l.nope + l.rope;
    Operand from = h;
    if (l.q_rank > 0) {
      from = Project(h, Of("attn_q_a"), l.q_rank, Of("q_a"));
      from = Norm(from, Of("attn_q_a_norm"), Of("q_a.norm"));
    }
    const Operand q =
        Project(from, l.q_rank > 0 ? Of("attn_q_b") : Of("attn_q"), c_.heads * head, Of("q"));
    const Operand kv = Project(h, Of("attn_kv_a_mqa"), l.rank + l.rope, Of("kv_a"));
    const Operand latent = Norm({kv.value, 0, l.rank}, Of("attn_kv_a_norm"), Of("latent"));
    const Operand key = Rotate({kv.value, l.rank, l.rope}, Of("k.rot"));
    graph_.nodes.push_back({.op = Op::kKvWrite, .inputs = {latent, key}, .layer = layer_});

    const Operand plain = SplitHeads(q, head, 0, l.nope, Of("q.nope"));
    const Operand rotated = Rotate(SplitHeads(q, head, l.nope, l.rope, Of("q.rope")), Of("q.rot"));
    const Operand absorbed = HeadProduct(plain, "attn_k_b", l.rank, Of("q.latent"));
    Operand query = JoinHeads({absorbed, rotated}, Of("q.joined"));
    query = Scale(query, QueryScale(), Of("q.scaled"));
    const Operand o = Attend(query, c_.heads * l.rank);
    const Operand values =
        HeadProduct(SplitHeads(o, l.rank, 0, l.rank, Of("o.heads")), "attn_v_b", l.value, Of("v"));
    return Project(JoinHeads({values}, Of("o.joined")), Of("attn_output"), c_.hidden, Of("proj"));
  }

  Operand SplitHeads(const Operand& x, int32_t head_width, int32_t column, int32_t width,
                     const std::string& name) {
    return graph_.Append({.op = Op::kSplitHeads,
                          .inputs = {x},
                          .layer = layer_,
                          .head_width = head_width,
                          .column = column},
                         name, width, Rows::kHeads, c_.heads);
  }

  Operand JoinHeads(std::vector<Operand> parts, const std::string& name) {
    int32_t width = 0;
    for (const Operand& part : parts) width += part.width;
    return graph_.Append({.op = Op::kJoinHeads, .inputs = std::move(parts), .layer = layer_}, name,
                         c_.heads * width);
  }

  // Each head's rows by its own matrix.
  Operand HeadProduct(const Operand& x, const char* weight, int32_t width,
                      const std::string& name) {
    return GroupedProduct(x, weight, c_.heads, width, name);
  }

  Operand Rotate(const Operand& x, const std::string& name) {
    const graph::Value from = graph_.values[x.value];
    const bool own = c_.has_window_rope && c_.HasWindow(layer_);
    return graph_.Append({.op = Op::kRope,
                          .inputs = {x},
                          .layer = layer_,
                          .head_width = c_.latent.rank > 0 ? c_.latent.rope : c_.head_dim,
                          .table = own ? 1 : 0},
                         name, x.width, from.rows, from.copies);
  }

  // ---- Feed-forward ----

  Operand FeedForward(const Operand& h, const std::string& suffix, int32_t width) {
    const Operand gate = Project(h, Of("ffn_gate" + suffix), width, Of("gate" + suffix));
    const Operand up = Project(h, Of("ffn_up" + suffix), width, Of("up" + suffix));
    return Project(Gated(gate, up, Of("act" + suffix)), Of("ffn_down" + suffix), c_.hidden,
                   Of("down" + suffix));
  }

  Operand Gated(const Operand& gate, const Operand& up, const std::string& name) {
    const graph::Value from = graph_.values[gate.value];
    if (c_.gate.kind == graph::GateKind::kClamped) {  // which changes both sides
      return graph_.Append({.op = Op::kGated, .inputs = {gate, up}, .gate = c_.gate}, name,
                           gate.width, from.rows, from.copies);
    }
    const Operand active = graph_.Append({.op = Op::kActivate, .inputs = {gate}, .gate = c_.gate},
                                         name + ".gate", gate.width, from.rows, from.copies);
    return graph_.Append({.op = Op::kMul, .inputs = {active, up}}, name, gate.width, from.rows,
                         from.copies);
  }

  Operand Experts(const Operand& h) {
    const graph::Routing& routing = c_.moe.routing;
    const Operand scores = Project(h, Of("ffn_gate_inp"), routing.experts, Of("scores"));
    Node route{.op = Op::kRoute, .inputs = {scores}, .layer = layer_, .routing = routing};
    const std::string bias = Of("exp_probs_b.bias");
    if (checkpoint_.Find(bias) != nullptr) {
      CheckTensor(bias, 1, routing.experts);
      route.weights = {bias};
    }
    const Operand routed = graph_.Append(std::move(route), Of("routing"), 2 * routing.used);
    const Operand x = graph_.Append(
        {.op = Op::kDispatch, .inputs = {h, routed}, .layer = layer_, .routing = routing},
        Of("x.experts"), h.width, Rows::kRouted, routing.used);
    const Operand gate = GroupedProduct(x, "ffn_gate", routing.experts, c_.moe.ffn, Of("gate"));
    const Operand up = GroupedProduct(x, "ffn_up", routing.experts, c_.moe.ffn, Of("up"));
    const Operand down = GroupedProduct(Gated(gate, up, Of("act")), "ffn_down", routing.experts,
                                        c_.hidden, Of("down"));
    return graph_.Append({.op = Op::kCombine, .inputs = {down, routed}, .layer = layer_},
                         Of("experts"), c_.hidden);
  }

  // ---- What all are made of ----

  Operand Norm(const Operand& x, const std::string& weight, const std::string& name,
               Rows rows = Rows::kTokens) {
    CheckTensor(weight + ".weight", 1, x.width);
    return graph_.Append({.op = Op::kRmsNorm,
                          .inputs = {x},
                          .weights = {weight + ".weight"},
                          .offset = c_.norm_offset},
                         name, x.width, rows);
  }

  // Where the model has such a norm.
  Operand PostNorm(const Operand& x, const std::string& weight) {
    if (checkpoint_.Find(Of(weight + ".weight")) == nullptr) return x;
    return Norm(x, Of(weight), Of(weight));
  }

  Operand HeadNorm(const Operand& x, const std::string& weight) {
    const std::string name = Of(weight + ".weight");
    if (checkpoint_.Find(name) == nullptr) return x;
    CheckTensor(name, 1, c_.head_dim);
    return graph_.Append({.op = Op::kRmsNorm,
                          .inputs = {x},
                          .weights = {name},
                          .head_width = c_.head_dim,
                          .offset = c_.norm_offset},
                         Of(weight), x.width);
  }

  Operand Scale(const Operand& x, float scale, const std::string& name) {
    return graph_.Append({.op = Op::kScale, .inputs = {x}, .layer = layer_, .scale = scale}, name,
                         x.width);
  }

  Operand Project(const Operand& x, const std::string& weight, int32_t width,
                  const std::string& name, Rows rows = Rows::kTokens) {
    CheckTensor(weight + ".weight", width, x.width);
    return graph_.Append({.op = Op::kMatmul,
                          .inputs = {x},
                          .weights = {weight + ".weight"},
                          .biases = {Bias(weight, width)}},
                         name, width, rows);
  }

  // The rows of part p by the matrix `weight`.p of this layer.
  Operand GroupedProduct(const Operand& x, const char* weight, int32_t parts, int32_t width,
                         const std::string& name) {
    const graph::Value from = graph_.values[x.value];
    Node node{.op = Op::kGroupedMatmul, .inputs = {x}, .layer = layer_, .parts = parts};
    for (int32_t part = 0; part < parts; ++part) {
      const std::string whole = Of(fmt::format("{}.{}", weight, part));
      CheckTensor(whole + ".weight", width, x.width);
      CheckPart(whole + ".weight", part > 0 ? node.weights[0] : whole + ".weight");
      node.weights.push_back(whole + ".weight");
      node.biases.push_back(Bias(whole, width));
    }
    return graph_.Append(std::move(node), name, width, from.rows, from.copies);
  }

  // Its name where there is one.
  std::string Bias(const std::string& weight, int32_t width) {
    std::string bias = weight + ".bias";
    if (checkpoint_.Find(bias) == nullptr) return "";
    CheckTensor(bias, 1, width);
    return bias;
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
    } else if (!IsSelfContained(tensor->dtype) && tensor->scaled == nullptr) {
      status_ = absl::InvalidArgumentError(fmt::format(
          "tensor '{}' has type {} without scales: quantization_config does not say what it means",
          name, Info(tensor->dtype).name));
    }
  }

  // Its rows are looked up one by one.
  void CheckEmbedding() {
    if (!status_.ok() || checkpoint_.Find("token_embd.weight")->scaled == nullptr) return;
    status_ = absl::UnimplementedError(
        "tensor 'token_embd.weight' is quantised with scales in a tensor of their own, which an "
        "embedding cannot be");
  }

  // Parts are multiplied by one kernel, out of rows that are in one order.
  void CheckPart(const std::string& name, const std::string& first) {
    if (!status_.ok()) return;
    const TensorView& tensor = *checkpoint_.Find(name);
    const std::string type = Describe(tensor), wanted = Describe(*checkpoint_.Find(first));
    if (type != wanted) {
      status_ = absl::UnimplementedError(
          fmt::format("tensor '{}' has type {} but '{}' has type {}: they must have the same", name,
                      type, first, wanted));
    } else if (tensor.scaled != nullptr && !tensor.scaled->order.empty()) {
      status_ = absl::UnimplementedError(fmt::format(
          "tensor '{}' is an expert whose groups of columns are not consecutive (act-order)",
          name));
    }
  }

  static std::string Describe(const TensorView& tensor) {
    const char* name = Info(tensor.dtype).name;
    if (tensor.dtype != DType::kInt4 && tensor.dtype != DType::kInt8) return name;
    return fmt::format("{} in groups of {}{}", name, tensor.scaled->group_columns,
                       tensor.scaled->has_zero ? " with zero points" : "");
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& c_;
  int32_t layer_ = -1;
  Graph graph_;
  Status status_;
};

}  // namespace

StatusOr<Graph> BuildDecoder(const Checkpoint& checkpoint) { return Builder(checkpoint).Build(); }

}  // namespace kvasir::model
