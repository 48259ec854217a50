#include "plan/check.h"

#include <tuple>

#include <fmt/format.h>

namespace kvasir::plan {
namespace {

using graph::Op;
using graph::Rows;
using graph::ValueType;

constexpr int32_t kMaxWidth = 1 << 24;
constexpr size_t kMaxNodes = 1 << 16;

class Checker {
 public:
  explicit Checker(const CompiledModel& model) : m_(model) {}

  Status Run() {
    KVASIR_RETURN_IF_ERROR(CheckShape());
    const Status graph = graph::Verify(GraphOf(m_));
    if (!graph.ok()) return absl::InvalidArgumentError(graph.message());
    for (at_ = 0; at_ < m_.nodes.size(); ++at_) KVASIR_RETURN_IF_ERROR(CheckNode(m_.nodes[at_]));
    return Expect(head_ == 1, "the logits are no product of the rows wanted");
  }

 private:
  Status CheckShape() const {
    const std::tuple<const char*, int32_t, int32_t> sizes[] = {
        {"layers", m_.layers, 4096},    {"hidden", m_.hidden, kMaxWidth},
        {"heads", m_.heads, 4096},      {"kv_heads", m_.kv_heads, 4096},
        {"k_dim", m_.k_dim, 1 << 16},   {"v_dim", m_.v_dim, 1 << 16},
        {"vocab", m_.vocab, kMaxWidth}, {"context_length", m_.context_length, kMaxWidth}};
    for (const auto& [name, size, most] : sizes) {
      if (size < 1 || size > most) {
        return absl::InvalidArgumentError(fmt::format("{}: {} is out of range", name, size));
      }
    }
    if (m_.nodes.size() > kMaxNodes || m_.values.size() > kMaxNodes) {
      return absl::InvalidArgumentError("nodes: there are too many");
    }
    if (m_.heads % m_.kv_heads != 0 || m_.k_dim % 16 != 0 || m_.v_dim % 16 != 0 ||
        (m_.v_in_k && (m_.v_dim > m_.k_dim || m_.kv_heads != 1))) {
      return absl::InvalidArgumentError("heads and their sizes do not fit");
    }
    if (!(m_.rms_eps > 0)) return absl::InvalidArgumentError("rms_eps: is not positive");
    if (m_.embedding.rows != m_.vocab || m_.embedding.cols != m_.hidden) {
      return absl::InvalidArgumentError("embedding: has another shape than the model");
    }
    for (int32_t id : m_.eos_ids) {
      if (id < 0 || id >= m_.vocab) return absl::InvalidArgumentError("eos_ids: no such token");
    }
    if (m_.ropes.empty()) return absl::InvalidArgumentError("ropes: there are none");
    for (const model::RopeConfig& rope : m_.ropes) KVASIR_RETURN_IF_ERROR(CheckRope(rope));
    for (const graph::Value& value : m_.values) {
      if (value.width < 1 || value.copies < 1 || value.width > kMaxWidth ||
          value.copies > kMaxWidth / value.width) {
        return absl::InvalidArgumentError(
            fmt::format("value '{}' has an impossible width", value.name));
      }
    }
    return absl::OkStatus();
  }

  Status CheckRope(const model::RopeConfig& rope) const {
    const size_t half = static_cast<size_t>(rope.width) / 2;
    const auto fits = [&](const std::vector<float>& factors, bool needed) {
      for (float f : factors) {
        if (!(f > 0)) return false;
      }
      return factors.size() == half || (factors.empty() && !needed);
    };
    const bool by_length = rope.scaling == model::RopeScaling::kLongRope;
    if (rope.width < 4 || rope.width % 2 != 0 || rope.width > m_.k_dim || !(rope.theta > 0) ||
        !(rope.factor > 0) || rope.original_context < 0 ||
        (rope.scaling != model::RopeScaling::kNone && rope.original_context < 1) ||
        !fits(rope.factors, by_length) || !fits(rope.long_factors, by_length)) {
      return absl::InvalidArgumentError("ropes: one is out of range");
    }
    return absl::OkStatus();
  }

  // A CPU's plan narrows nothing but what products read.
  Status CheckTypes(const PlanNode& node) {
    if (m_.activations == "bf16") return absl::OkStatus();
    const bool product = node.op == Op::kMatmul || node.op == Op::kGroupedMatmul;
    for (size_t i = product ? 1 : 0; i < node.inputs.size(); ++i) {
      if (m_.values[node.inputs[i].value].type != ValueType::kFloat) {
        return Fail("reads BF16, which a plan for devices alone may");
      }
    }
    const bool any = node.op == Op::kQuantize || node.op == Op::kGated ||
                     (node.op == Op::kRmsNorm && node.head_width == 0);
    return Expect(any || node.output < 0 || m_.values[node.output].type == ValueType::kFloat,
                  "makes BF16, which a plan for devices alone may");
  }

  Status CheckNode(const PlanNode& node) {
    const graph::Value* out = node.output < 0 ? nullptr : &m_.values[node.output];
    KVASIR_RETURN_IF_ERROR(CheckTypes(node));
    if (node.output == m_.logits) head_ += node.op == Op::kMatmul && !node.residual;
    switch (node.op) {
      case Op::kEmbed:
        return Expect(out->width == m_.hidden, "the embedding has another width");
      case Op::kSelectRows:
        return Expect(out->width == m_.hidden, "rows of other than the hidden state");
      case Op::kMatmul:
      case Op::kGroupedMatmul:
        return CheckProduct(node);
      case Op::kRmsNorm: {
        const int32_t width = node.head_width > 0 ? node.head_width : node.inputs[0].width;
        KVASIR_RETURN_IF_ERROR(CheckVector(node.vector, width));
        return Expect(width % 16 == 0 && (out->rows != Rows::kOutput || out->width == m_.hidden),
                      "the norm has another width");
      }
      case Op::kGated:
      case Op::kActivate:
        return Expect(out->width % 16 == 0, "the gate's width is no multiple of 16");
      case Op::kRope:
        return CheckTable(node, out->width);
      case Op::kKvWrite:
        return CheckKvWrite(node, node.inputs[0].width, node.inputs[1].width);
      case Op::kRopeKvWrite:
        KVASIR_RETURN_IF_ERROR(CheckTable(node, node.inputs[0].width));
        if (m_.v_in_k || node.head_width != m_.k_dim || out->width != m_.heads * m_.k_dim ||
            node.inputs[0].width != out->width) {
          return Fail("the query has another width");
        }
        return CheckKvWrite(node, node.inputs[1].width, node.inputs[2].width);
      case Op::kAttention:
        KVASIR_RETURN_IF_ERROR(CheckLayer(node));
        if (node.vector >= 0) KVASIR_RETURN_IF_ERROR(CheckVector(node.vector, m_.heads));
        return Expect(node.inputs[0].width == m_.heads * m_.k_dim &&
                          out->width == m_.heads * m_.v_dim && node.window >= 0,
                      "the heads have another width");
      case Op::kQuantize:
        return node.order < 0 ? absl::OkStatus() : CheckOrder(node.order, out->width);
      case Op::kRoute:
        if (node.vector < 0) return absl::OkStatus();
        return CheckVector(node.vector, node.routing.experts);
      default:
        return absl::OkStatus();
    }
  }

  Status CheckProduct(const PlanNode& node) {
    if (node.matrix < 0 || node.matrix >= static_cast<int32_t>(m_.matrices.size())) {
      return Fail("there is no such matrix");
    }
    const ops::PanelView& matrix = m_.matrices[node.matrix].view;
    const graph::Value& in = m_.values[node.inputs[0].value];
    const graph::Value& out = m_.values[node.output];
    if (matrix.cols != in.width || matrix.rows != int64_t{node.parts} * out.width ||
        (node.parts > 1 && out.width % ops::kPanelRows != 0)) {
      return Fail("the matrix has another shape");
    }
    const bool bf16 = matrix.format == ops::PanelFormat::kBf16Pairs ||
                      matrix.format == ops::PanelFormat::kBf16Rows;
    const ValueType wanted = ops::IsQuantized(matrix.format) ? ValueType::kQuantized
                             : bf16                          ? ValueType::kBf16
                                                             : ValueType::kFloat;
    if (in.type != wanted) return Fail("the activations have another type than the weights want");
    if (node.output == m_.logits && (out.width != m_.vocab || out.rows != Rows::kOutput)) {
      return Fail("the logits have another width");
    }
    return node.bias < 0 ? absl::OkStatus() : CheckVector(node.bias, matrix.rows);
  }

  Status CheckKvWrite(const PlanNode& node, int32_t k, int32_t v) {
    KVASIR_RETURN_IF_ERROR(CheckLayer(node));
    const bool fits = m_.v_in_k ? k == m_.v_dim && k + v == m_.k_dim
                                : k == m_.kv_heads * m_.k_dim && v == m_.kv_heads * m_.v_dim;
    return Expect(fits, "K and V have another width");
  }

  Status CheckTable(const PlanNode& node, int32_t width) {
    if (node.table < 0 || node.table >= static_cast<int32_t>(m_.ropes.size()) ||
        m_.ropes[node.table].width > node.head_width || width % node.head_width != 0) {
      return Fail("there is no such rotation of its heads");
    }
    return absl::OkStatus();
  }

  Status CheckLayer(const PlanNode& node) {
    return Expect(node.layer >= 0 && node.layer < m_.layers, "there is no such layer");
  }

  Status CheckVector(int32_t vector, int64_t size) {
    const bool there = vector >= 0 && vector < static_cast<int32_t>(m_.vectors.size());
    return Expect(there && static_cast<int64_t>(m_.vectors[vector].size()) == size,
                  "there is no such vector of that size");
  }

  Status CheckOrder(int32_t index, int32_t width) {
    if (index >= static_cast<int32_t>(m_.orders.size()) ||
        static_cast<int32_t>(m_.orders[index].size()) != width) {
      return Fail("there is no such order of that size");
    }
    for (const int32_t column : m_.orders[index]) {
      if (column < 0 || column >= width) return Fail("the order names a column that is not there");
    }
    return absl::OkStatus();
  }

  Status Fail(const std::string& what) const {
    return absl::InvalidArgumentError(
        at_ < m_.nodes.size()
            ? fmt::format("node {} ({}): {}", at_, graph::Name(m_.nodes[at_].op), what)
            : what);
  }
  Status Expect(bool holds, const char* what) const {
    return holds ? absl::OkStatus() : Fail(what);
  }

  const CompiledModel& m_;
  size_t at_ = 0;
  int head_ = 0;  // products that make the logits
};

}  // namespace

Status CheckModel(const CompiledModel& model) { return Checker(model).Run(); }

}  // namespace kvasir::plan
