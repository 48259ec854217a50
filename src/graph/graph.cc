#include "graph/graph.h"

#include <fmt/format.h>

namespace kvasir::graph {
namespace {

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
