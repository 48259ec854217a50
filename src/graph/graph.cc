#include "graph/graph.h"

#include <fmt/format.h>

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

std::string Show(const Graph& graph, const Operand& operand) {
  const Value& value = graph.values[operand.value];
  if (operand.column == 0 && operand.width == value.width) return value.name;
  return fmt::format("{}[{}:{}]", value.name, operand.column, operand.column + operand.width);
}

const char* TypeName(ValueType type) {
  switch (type) {
    case ValueType::kFloat:
      return "f32";
    case ValueType::kQuantized:
      return "i8";
    case ValueType::kBf16:
      return "bf16";
  }
  return "?";
}

Status VerifyNode(const Graph& graph, const Node& node, size_t index,
                  const std::vector<bool>& made) {
  const auto fail = [&](const std::string& what) {
    return absl::InternalError(fmt::format("graph node {} ({}): {}", index, Name(node.op), what));
  };
  const Arity arity = ArityOf(node.op);
  if (node.inputs.size() < arity.min_inputs || node.inputs.size() > arity.max_inputs ||
      node.outputs.size() != arity.outputs) {
    return fail("wrong number of operands");
  }
  if (node.residual != (node.op == Op::kMatmul && node.inputs.size() == 2)) {
    return fail("residual flag and operands disagree");
  }
  for (const Operand& in : node.inputs) {
    if (in.value < 0 || in.value >= static_cast<ValueId>(graph.values.size())) {
      return fail("operand does not exist");
    }
    if (!made[in.value]) {
      return fail(fmt::format("'{}' is used before it is made", graph.values[in.value].name));
    }
    if (in.column < 0 || in.width <= 0 || in.column + in.width > graph.values[in.value].width) {
      return fail(fmt::format("slice leaves '{}'", graph.values[in.value].name));
    }
  }
  for (ValueId out : node.outputs) {
    if (out < 0 || out >= static_cast<ValueId>(graph.values.size()) || made[out]) {
      return fail("output does not exist or is made twice");
    }
  }
  const bool grouped = node.op == Op::kGroupedMatmul;
  if (node.parts < 1 || (!grouped && node.parts != 1) || node.weights.size() % node.parts != 0) {
    return fail("weights and parts disagree");
  }
  const bool by_heads = node.op == Op::kRope || node.op == Op::kSplitHeads;
  if (node.head_width < 0 || (by_heads && node.head_width == 0) ||
      (node.head_width > 0 && node.inputs[0].width % node.head_width != 0)) {
    return fail("the input is not made of heads");
  }
  if (grouped && graph.values[node.inputs[0].value].rows != Rows::kHeads &&
      graph.values[node.inputs[0].value].rows != Rows::kRouted) {
    return fail("the input's rows belong to no part");
  }
  const bool elementwise = node.op == Op::kMul || node.op == Op::kAdd || node.op == Op::kGated;
  if (elementwise && (node.inputs[0].width != node.inputs[1].width ||
                      node.inputs[0].width != graph.values[node.outputs[0]].width)) {
    return fail("operands differ in width");
  }
  if (node.residual && node.inputs[1].width != graph.values[node.outputs[0]].width) {
    return fail("residual and output differ in width");
  }
  return absl::OkStatus();
}

}  // namespace

const char* Name(Op op) {
  static constexpr const char* kNames[] = {
      "embed",          "rms_norm",     "matmul",     "rope",  "scale",       "kv_write",
      "attention",      "activate",     "mul",        "add",   "select_rows", "quantize",
      "gated",          "split_heads",  "join_heads", "route", "dispatch",    "combine",
      "grouped_matmul", "rope_kv_write"};
  return kNames[static_cast<int>(op)];
}

ValueId Graph::AddValue(std::string name, int32_t width, Rows rows, int32_t copies) {
  values.push_back({std::move(name), rows, ValueType::kFloat, width, copies});
  return static_cast<ValueId>(values.size()) - 1;
}

Operand Graph::Append(Node node, std::string name, int32_t width, Rows rows, int32_t copies) {
  const ValueId out = AddValue(std::move(name), width, rows, copies);
  node.outputs = {out};
  nodes.push_back(std::move(node));
  return Whole(out);
}

Status Verify(const Graph& graph) {
  std::vector<bool> made(graph.values.size(), false);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    KVASIR_RETURN_IF_ERROR(VerifyNode(graph, graph.nodes[i], i, made));
    for (ValueId out : graph.nodes[i].outputs) made[out] = true;
  }
  if (graph.logits < 0 || graph.logits >= static_cast<ValueId>(made.size()) ||
      !made[graph.logits]) {
    return absl::InternalError("graph: the logits are never made");
  }
  return absl::OkStatus();
}

std::string Print(const Graph& graph) {
  std::string out;
  for (const Node& node : graph.nodes) {
    for (ValueId v : node.outputs) {
      out += fmt::format("{}: {}[{}] = ", graph.values[v].name, TypeName(graph.values[v].type),
                         graph.values[v].width);
    }
    out += Name(node.op);
    for (const Operand& in : node.inputs) out += " " + Show(graph, in);
    const size_t shown = node.parts > 1 ? node.weights.size() / node.parts : node.weights.size();
    for (size_t i = 0; i < shown; ++i) out += fmt::format(" @{}", node.weights[i]);
    if (node.parts > 1) out += fmt::format(" ... of {} parts", node.parts);
    if (node.residual) out += " +residual";
    out += '\n';
  }
  return out;
}

}  // namespace kvasir::graph
