#include <fmt/format.h>

#include "graph/graph.h"

namespace kvasir::graph {
namespace {

struct Arity {
  size_t min_inputs;
  size_t max_inputs;
  size_t outputs;
};

Arity ArityOf(Op op) {
  switch (op) {
    case Op::kEmbed:
      return {0, 0, 1};
    case Op::kMatmul:
      return {1, 2, 1};
    case Op::kJoinHeads:
      return {1, 2, 1};
    case Op::kKvWrite:
      return {2, 2, 0};
    case Op::kMul:
    case Op::kAdd:
    case Op::kGated:
    case Op::kDispatch:
    case Op::kCombine:
      return {2, 2, 1};
    case Op::kRopeKvWrite:
      return {3, 3, 1};
    default:
      return {1, 1, 1};
  }
}

// Checks one node after the other, remembering what made each value.
class Verifier {
 public:
  explicit Verifier(const Graph& graph)
      : graph_(graph), producers_(graph.values.size(), -1), taken_(graph.values.size(), false) {}

  Status Run() {
    for (const Value& value : graph_.values) KVASIR_RETURN_IF_ERROR(CheckValue(value));
    for (at_ = 0; at_ < static_cast<int>(graph_.nodes.size()); ++at_) {
      const Node& node = graph_.nodes[at_];
      KVASIR_RETURN_IF_ERROR(CheckOperands(node));
      KVASIR_RETURN_IF_ERROR(CheckAttributes(node));
      KVASIR_RETURN_IF_ERROR(CheckTypes(node));
      KVASIR_RETURN_IF_ERROR(CheckShapes(node));
      for (ValueId out : node.outputs) producers_[out] = at_;
      if (node.residual) taken_[node.inputs[1].value] = true;
      if (node.op == Op::kDispatch) dispatch_ = at_;
    }
    return CheckResult();
  }

 private:
  Status Fail(const std::string& what) const {
    return absl::InternalError(
        fmt::format("graph node {} ({}): {}", at_, Name(graph_.nodes[at_].op), what));
  }

  Status CheckValue(const Value& value) const {
    const bool quantized = value.type == ValueType::kQuantized;
    if (value.width <= 0 || value.copies <= 0 ||
        (value.type != ValueType::kFloat && value.width % (quantized ? 32 : 16) != 0)) {
      return absl::InternalError(
          fmt::format("graph value '{}' has a width that its type cannot "
                      "have",
                      value.name));
    }
    return absl::OkStatus();
  }

  Status CheckOperands(const Node& node) const {
    const Arity arity = ArityOf(node.op);
    if (node.inputs.size() < arity.min_inputs || node.inputs.size() > arity.max_inputs ||
        node.outputs.size() != arity.outputs) {
      return Fail("wrong number of operands");
    }
    for (const Operand& in : node.inputs) {
      if (in.value < 0 || in.value >= static_cast<ValueId>(graph_.values.size())) {
        return Fail("operand does not exist");
      }
      const Value& value = graph_.values[in.value];
      if (producers_[in.value] < 0) {
        return Fail(fmt::format("'{}' is used before it is made", value.name));
      }
      if (in.value == graph_.logits) return Fail("the logits are read");
      if (taken_[in.value]) {
        return Fail(fmt::format("'{}' is read after a product was added onto it", value.name));
      }
      if (in.column < 0 || in.width <= 0 || in.column > value.width - in.width) {
        return Fail(fmt::format("slice leaves '{}'", value.name));
      }
    }
    for (ValueId out : node.outputs) {
      if (out < 0 || out >= static_cast<ValueId>(graph_.values.size()) || producers_[out] >= 0) {
        return Fail("output does not exist or is made twice");
      }
    }
    return absl::OkStatus();
  }

  Status CheckAttributes(const Node& node) const {
    if (node.residual != (node.op == Op::kMatmul && node.inputs.size() == 2)) {
      return Fail("residual flag and operands disagree");
    }
    const bool grouped = node.op == Op::kGroupedMatmul;
    if (node.parts < 1 || (!grouped && node.parts != 1) || node.weights.size() % node.parts != 0) {
      return Fail("weights and parts disagree");
    }
    const bool by_heads =
        node.op == Op::kRope || node.op == Op::kSplitHeads || node.op == Op::kRopeKvWrite;
    if (node.head_width < 0 || (by_heads && node.head_width == 0) ||
        (node.head_width > 0 &&
         (node.inputs.empty() || node.inputs[0].width % node.head_width != 0))) {
      return Fail("the input is not made of heads");
    }
    const Routing& r = node.routing;
    const bool routes = node.op == Op::kRoute || node.op == Op::kDispatch;
    if (routes && (r.used < 1 || r.used > r.experts || r.groups < 1 || r.experts % r.groups != 0 ||
                   r.groups_used < 1 || r.groups_used > r.groups ||
                   r.used > r.experts / r.groups * r.groups_used)) {
      return Fail("the routing chooses more than there is");
    }
    return absl::OkStatus();
  }

  Status CheckTypes(const Node& node) const {
    const bool product = node.op == Op::kMatmul || node.op == Op::kGroupedMatmul;
    const bool reads_bf16 = node.op == Op::kAttention || node.op == Op::kGated;
    for (size_t i = product ? 1 : 0; i < node.inputs.size(); ++i) {
      const ValueType type = In(node, i).type;
      if (type != ValueType::kFloat && !(reads_bf16 && type == ValueType::kBf16)) {
        return Fail("an operand is no float");
      }
    }
    // Products read whole rows.
    if (product && node.inputs[0] != graph_.Whole(node.inputs[0].value)) {
      return Fail("the operand of a product is a slice");
    }
    if (node.residual && (node.inputs[1] != graph_.Whole(node.inputs[1].value) ||
                          node.inputs[1].value == node.inputs[0].value)) {
      return Fail("the residual is a slice, or what is multiplied");
    }
    if (node.outputs.empty()) return absl::OkStatus();
    const bool any = node.op == Op::kQuantize || node.op == Op::kGated ||
                     (node.op == Op::kRmsNorm && node.head_width == 0);
    const bool bf16 = Out(node).type == ValueType::kBf16 && node.outputs[0] != graph_.logits &&
                      (reads_bf16 || node.op == Op::kRopeKvWrite || node.op == Op::kRmsNorm ||
                       (node.op == Op::kMatmul && !node.residual));
    if (!any && !bf16 && Out(node).type != ValueType::kFloat) return Fail("the result is no float");
    return absl::OkStatus();
  }

  Status CheckShapes(const Node& node) const {
    switch (node.op) {
      case Op::kEmbed:
        return Expect(IsTokens(Out(node)), "embeds other rows than tokens");
      case Op::kRmsNorm:
      case Op::kRope:
      case Op::kScale:
      case Op::kActivate:
      case Op::kQuantize:
      case Op::kMul:
      case Op::kAdd:
      case Op::kGated:
        for (const Operand& in : node.inputs) {
          if (in.width != Out(node).width) return Fail("operands differ in width");
          if (!SameRows(graph_.values[in.value], Out(node))) return Fail("rows differ");
        }
        return absl::OkStatus();
      case Op::kMatmul:
        if (node.residual && node.inputs[1].width != Out(node).width) {
          return Fail("residual and output differ in width");
        }
        for (size_t i = 0; i < node.inputs.size(); ++i) {
          if (!SameRows(In(node, i), Out(node))) return Fail("rows differ");
        }
        return absl::OkStatus();
      case Op::kGroupedMatmul:
        return CheckGrouped(node);
      case Op::kKvWrite:
      case Op::kAttention:
      case Op::kRopeKvWrite:
        for (size_t i = 0; i < node.inputs.size(); ++i) {
          if (!IsTokens(In(node, i))) return Fail("the cache holds tokens only");
        }
        return Expect(node.outputs.empty() || IsTokens(Out(node)), "the result is not of tokens");
      case Op::kSelectRows:
        return Expect(IsTokens(In(node, 0)) && Out(node).rows == Rows::kOutput &&
                          Out(node).copies == 1 && node.inputs[0].width == Out(node).width,
                      "selects other rows than tokens");
      case Op::kSplitHeads:
      case Op::kJoinHeads:
        return CheckHeads(node);
      case Op::kRoute:
        return Expect(IsTokens(In(node, 0)) && IsTokens(Out(node)) &&
                          node.inputs[0].width == node.routing.experts &&
                          Out(node).width == int64_t{2} * node.routing.used,
                      "scores and experts disagree");
      case Op::kDispatch:
        return CheckDispatch(node);
      case Op::kCombine:
        return CheckCombine(node);
    }
    return Fail("is unknown");
  }

  Status CheckHeads(const Node& node) const {
    const Value& out = Out(node);
    if (node.op == Op::kSplitHeads) {
      return Expect(IsTokens(In(node, 0)) && out.rows == Rows::kHeads &&
                        int64_t{out.copies} * node.head_width == node.inputs[0].width &&
                        node.column >= 0 && node.column <= node.head_width - out.width,
                    "the columns lie outside the head");
    }
    int64_t width = 0;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (In(node, i).rows != Rows::kHeads || In(node, i).copies != In(node, 0).copies) {
        return Fail("joins other rows than heads");
      }
      width += int64_t{In(node, i).copies} * node.inputs[i].width;
    }
    return Expect(IsTokens(out) && out.width == width, "the heads have another width");
  }

  Status CheckGrouped(const Node& node) const {
    const Value& in = In(node, 0);
    if (in.rows == Rows::kHeads && in.copies != node.parts) return Fail("heads and parts disagree");
    if (in.rows == Rows::kRouted) {
      KVASIR_RETURN_IF_ERROR(CheckRouted(node.inputs[0].value));
      if (graph_.nodes[dispatch_].routing.experts != node.parts) {
        return Fail("experts and parts disagree");
      }
    }
    if (in.rows != Rows::kHeads && in.rows != Rows::kRouted) {
      return Fail("the input's rows belong to no part");
    }
    return Expect(SameRows(in, Out(node)), "rows differ");
  }

  // What one dispatch sorted is used before the next one sorts.
  Status CheckRouted(ValueId value) const {
    return Expect(dispatch_ >= 0 && producers_[value] >= dispatch_ &&
                      graph_.values[value].copies == graph_.nodes[dispatch_].routing.used,
                  "the rows were sorted by another dispatch");
  }

  Status CheckDispatch(const Node& node) const {
    const Node& route = graph_.nodes[producers_[node.inputs[1].value]];
    if (route.op != Op::kRoute || !(route.routing == node.routing) ||
        node.inputs[1] != graph_.Whole(node.inputs[1].value)) {
      return Fail("dispatches by what is no routing of it");
    }
    const Value& out = Out(node);
    return Expect(IsTokens(In(node, 0)) && out.rows == Rows::kRouted &&
                      out.copies == node.routing.used && out.width == node.inputs[0].width,
                  "the rows are not those of the experts");
  }

  Status CheckCombine(const Node& node) const {
    KVASIR_RETURN_IF_ERROR(CheckRouted(node.inputs[0].value));
    return Expect(In(node, 0).rows == Rows::kRouted && IsTokens(Out(node)) &&
                      node.inputs[1] == graph_.nodes[dispatch_].inputs[1] &&
                      node.inputs[0].width == Out(node).width,
                  "combines other rows than were dispatched");
  }

  Status CheckResult() const {
    if (graph_.logits < 0 || graph_.logits >= static_cast<ValueId>(producers_.size()) ||
        producers_[graph_.logits] < 0) {
      return absl::InternalError("graph: the logits are never made");
    }
    return absl::OkStatus();
  }

  Status Expect(bool holds, const char* what) const {
    return holds ? absl::OkStatus() : Fail(what);
  }
  const Value& In(const Node& node, size_t i) const { return graph_.values[node.inputs[i].value]; }
  const Value& Out(const Node& node) const { return graph_.values[node.outputs[0]]; }
  static bool IsTokens(const Value& v) { return v.rows == Rows::kTokens && v.copies == 1; }
  static bool SameRows(const Value& a, const Value& b) {
    return a.rows == b.rows && a.copies == b.copies;
  }

  const Graph& graph_;
  std::vector<int> producers_;  // the node that made a value; -1: none yet
  std::vector<bool> taken_;     // its memory holds another value now
  int at_ = 0;
  int dispatch_ = -1;  // the last
};

}  // namespace

Status Verify(const Graph& graph) { return Verifier(graph).Run(); }

}  // namespace kvasir::graph
