#include "plan/plan.h"

#include <utility>

namespace kvasir::plan {

int64_t ValueBytes(graph::ValueType type, int64_t rows, int64_t width) {
  switch (type) {
    case graph::ValueType::kFloat:
      return rows * width * 4;
    case graph::ValueType::kBf16:
      return rows * width * 2;
    case graph::ValueType::kQuantized:
      return ops::QuantizedRows::Bytes(rows, width);
  }
  return 0;
}

graph::Graph GraphOf(const CompiledModel& model) {
  graph::Graph out;
  out.values = model.values;
  for (const PlanNode& n : model.nodes) {
    graph::Node node{.op = n.op, .inputs = n.inputs, .layer = n.layer, .scale = n.scale};
    if (n.output >= 0) node.outputs = {n.output};
    node.residual = n.residual;
    node.parts = n.parts;
    node.head_width = n.head_width;
    node.column = n.column;
    node.table = n.table;
    node.window = n.window;
    node.softcap = n.softcap;
    node.gate = n.gate;
    node.routing = n.routing;
    out.nodes.push_back(std::move(node));
  }
  out.logits = model.logits;
  return out;
}

}  // namespace kvasir::plan
