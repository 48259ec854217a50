#include "compile/passes.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace kvasir::compile {
namespace {

using graph::Graph;
using graph::Node;
using graph::Op;
using graph::Operand;
using graph::ValueId;
using graph::ValueType;

// Index of the node that makes a value.
std::vector<int> Producers(const Graph& graph) {
  std::vector<int> out(graph.values.size(), -1);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (ValueId v : graph.nodes[i].outputs) out[v] = static_cast<int>(i);
  }
  return out;
}

// How many operands read a value; the result counts as read.
std::vector<int> Uses(const Graph& graph) {
  std::vector<int> out(graph.values.size(), 0);
  for (const Node& node : graph.nodes) {
    for (const Operand& in : node.inputs) ++out[in.value];
  }
  if (graph.logits >= 0) ++out[graph.logits];
  return out;
}

void EraseMarked(Graph& graph, const std::vector<bool>& dead) {
  size_t kept = 0;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (dead[i]) continue;
    if (kept != i) graph.nodes[kept] = std::move(graph.nodes[i]);
    ++kept;
  }
  graph.nodes.resize(kept);
}

// Rewrites every read of `from` into a read of `to` + the same column.
void ReplaceReads(Graph& graph, ValueId from, const Operand& to) {
  for (Node& node : graph.nodes) {
    for (Operand& in : node.inputs) {
      if (in.value == from) in = {to.value, to.column + in.column, in.width};
    }
  }
}

bool IsPlainMatmul(const Node& node) {
  return node.op == Op::kMatmul && !node.residual && node.softcap == 0.0f;
}

bool Stackable(const Node& a, const Node& b) {
  const bool products = (IsPlainMatmul(a) && IsPlainMatmul(b)) ||
                        (a.op == Op::kGroupedMatmul && b.op == Op::kGroupedMatmul);
  return products && a.parts == b.parts && a.inputs == b.inputs;
}

// `more` behind what each of the parts of `list` has.
void AppendToParts(std::vector<std::string>& list, const std::vector<std::string>& more,
                   size_t parts) {
  std::vector<std::string> out;
  const size_t old_part = list.size() / parts, new_part = more.size() / parts;
  for (size_t p = 0; p < parts; ++p) {
    out.insert(out.end(), list.begin() + p * old_part, list.begin() + (p + 1) * old_part);
    out.insert(out.end(), more.begin() + p * new_part, more.begin() + (p + 1) * new_part);
  }
  list = std::move(out);
}

}  // namespace

void FuseRopeKvWrite(Graph& graph) {
  const std::vector<int> producers = Producers(graph);
  const std::vector<int> uses = Uses(graph);
  std::vector<bool> dead(graph.nodes.size(), false);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i].op != Op::kKvWrite) continue;
    const int layer = graph.nodes[i].layer;
    const auto attention = std::find_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& n) {
      return n.op == Op::kAttention && n.layer == layer;
    });
    if (attention == graph.nodes.end()) continue;
    const ValueId q = attention->inputs[0].value;
    const int scale = producers[q];
    const int k_rope = producers[graph.nodes[i].inputs[0].value];
    // (Latent attention rotates a part of K only.)
    if (graph.nodes[scale].op != Op::kScale || graph.nodes[k_rope].op != Op::kRope) continue;
    const int q_rope = producers[graph.nodes[scale].inputs[0].value];
    if (graph.nodes[q_rope].op != Op::kRope || uses[q] != 1) continue;
    Node fused{.op = Op::kRopeKvWrite};
    fused.inputs = {graph.nodes[q_rope].inputs[0], graph.nodes[k_rope].inputs[0],
                    graph.nodes[i].inputs[1]};
    fused.outputs = {q};
    fused.layer = layer;
    fused.scale = graph.nodes[scale].scale;
    fused.head_width = graph.nodes[q_rope].head_width;
    fused.table = graph.nodes[q_rope].table;
    dead[scale] = dead[k_rope] = dead[q_rope] = true;
    graph.nodes[i] = std::move(fused);
  }
  EraseMarked(graph, dead);
}

void FuseSharedInput(Graph& graph,
                     const std::function<bool(const std::string&, const std::string&)>& stackable) {
  std::vector<bool> dead(graph.nodes.size(), false);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (dead[i]) continue;
    for (size_t j = i + 1; j < graph.nodes.size(); ++j) {
      Node& first = graph.nodes[i];
      Node& other = graph.nodes[j];
      if (dead[j] || !Stackable(first, other) || !stackable(first.weights[0], other.weights[0])) {
        continue;
      }
      const ValueId out = first.outputs[0];
      const ValueId old = other.outputs[0];
      const Operand slice{out, graph.values[out].width, graph.values[old].width};
      graph.values[out].width += slice.width;
      graph.values[out].name += "+" + graph.values[old].name;
      AppendToParts(first.weights, other.weights, first.parts);
      AppendToParts(first.biases, other.biases, first.parts);
      ReplaceReads(graph, old, slice);
      dead[j] = true;
    }
  }
  EraseMarked(graph, dead);
}

void FuseGate(Graph& graph) {
  const std::vector<int> producers = Producers(graph);
  const std::vector<int> uses = Uses(graph);
  std::vector<bool> dead(graph.nodes.size(), false);
  for (Node& node : graph.nodes) {
    if (node.op != Op::kMul) continue;
    const int active = producers[node.inputs[0].value];
    if (graph.nodes[active].op != Op::kActivate || uses[node.inputs[0].value] != 1) continue;
    node.op = Op::kGated;
    node.gate = graph.nodes[active].gate;
    node.inputs[0] = graph.nodes[active].inputs[0];
    dead[active] = true;
  }
  EraseMarked(graph, dead);
}

void FoldScales(Graph& graph) {
  const std::vector<int> producers = Producers(graph);
  const std::vector<int> uses = Uses(graph);
  std::vector<bool> dead(graph.nodes.size(), false);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& scale = graph.nodes[i];
    if (scale.op != Op::kScale || uses[scale.inputs[0].value] != 1) continue;
    Node& from = graph.nodes[producers[scale.inputs[0].value]];
    if (from.op != Op::kEmbed) continue;
    from.scale *= scale.scale;
    from.outputs = scale.outputs;
    dead[i] = true;
  }
  EraseMarked(graph, dead);
}

void FuseResidual(Graph& graph) {
  const std::vector<int> producers = Producers(graph);
  const std::vector<int> uses = Uses(graph);
  std::vector<int> last_read(graph.values.size(), -1);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const Operand& in : graph.nodes[i].inputs) last_read[in.value] = static_cast<int>(i);
  }
  std::vector<bool> dead(graph.nodes.size(), false);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    Node& add = graph.nodes[i];
    if (add.op != Op::kAdd) continue;
    const Operand x = add.inputs[0];
    const ValueId product = add.inputs[1].value;
    const int matmul = producers[product];
    const bool whole = x == graph.Whole(x.value) && add.inputs[1] == graph.Whole(product);
    if (!whole || !IsPlainMatmul(graph.nodes[matmul]) || uses[product] != 1 ||
        last_read[x.value] != static_cast<int>(i)) {
      continue;
    }
    Node fused = std::move(graph.nodes[matmul]);
    fused.inputs.push_back(x);
    fused.residual = true;
    fused.outputs = add.outputs;
    graph.nodes[i] = std::move(fused);
    dead[matmul] = true;
  }
  EraseMarked(graph, dead);
}

void NarrowToBf16(Graph& graph) {
  const auto makes = [](const Node& node) {
    return (node.op == Op::kMatmul && !node.residual) || node.op == Op::kRmsNorm ||
           node.op == Op::kRopeKvWrite || node.op == Op::kAttention || node.op == Op::kGated;
  };
  const auto reads = [](const Node& node, size_t operand) {
    return (node.op == Op::kMatmul && operand == 0) || node.op == Op::kAttention ||
           node.op == Op::kGated;
  };
  std::vector<bool> stays(graph.values.size(), false);
  stays[graph.logits] = true;
  for (const Node& node : graph.nodes) {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (!reads(node, i)) stays[node.inputs[i].value] = true;
    }
    for (ValueId v : node.outputs) {
      if (!makes(node)) stays[v] = true;
    }
  }
  for (size_t v = 0; v < graph.values.size(); ++v) {
    if (!stays[v]) graph.values[v].type = ValueType::kBf16;
  }
}

void InsertQuantize(Graph& graph,
                    const std::function<Activation(const std::string&)>& activation_of) {
  struct Made {
    Operand from;
    Activation activation;
    Operand to;
  };
  std::vector<Made> made;
  std::vector<Node> nodes;
  for (Node& node : graph.nodes) {
    const Activation wanted = node.op == Op::kMatmul || node.op == Op::kGroupedMatmul
                                  ? activation_of(node.weights[0])
                                  : ValueType::kFloat;
    if (wanted.type != ValueType::kFloat &&
        graph.values[node.inputs[0].value].type != wanted.type) {
      const Operand from = node.inputs[0];
      auto it = std::find_if(made.begin(), made.end(), [&](const Made& m) {
        return m.from == from && m.activation == wanted;
      });
      if (it == made.end()) {
        const graph::Value& source = graph.values[from.value];
        const ValueId out =
            graph.AddValue(source.name + ".q", from.width, source.rows, source.copies);
        graph.values[out].type = wanted.type;
        nodes.push_back({.op = Op::kQuantize, .inputs = {from}, .outputs = {out}});
        if (!wanted.order.empty()) nodes.back().weights = {node.weights[0]};
        made.push_back({from, wanted, graph.Whole(out)});
        it = made.end() - 1;
      }
      node.inputs[0] = it->to;
    }
    nodes.push_back(std::move(node));
  }
  graph.nodes = std::move(nodes);
}

void FuseQuantize(Graph& graph) {
  const std::vector<int> producers = Producers(graph);
  const std::vector<int> uses = Uses(graph);
  std::vector<bool> dead(graph.nodes.size(), false);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& quantize = graph.nodes[i];
    if (quantize.op != Op::kQuantize || !quantize.weights.empty()) continue;
    const Operand in = quantize.inputs[0];
    Node& producer = graph.nodes[producers[in.value]];
    const bool fusable =
        (producer.op == Op::kRmsNorm && producer.head_width == 0) || producer.op == Op::kGated;
    if (!fusable || uses[in.value] != 1 || in != graph.Whole(in.value)) continue;
    producer.outputs = quantize.outputs;
    dead[i] = true;
  }
  EraseMarked(graph, dead);
}

void RemoveDeadNodes(Graph& graph) {
  bool changed = true;
  while (changed) {
    changed = false;
    const std::vector<int> uses = Uses(graph);
    std::vector<bool> dead(graph.nodes.size(), false);
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      const Node& node = graph.nodes[i];
      const bool has_effect = node.op == Op::kKvWrite || node.op == Op::kRopeKvWrite;
      if (has_effect || uses[node.outputs[0]] != 0) continue;
      dead[i] = true;
      changed = true;
    }
    EraseMarked(graph, dead);
  }
}

}  // namespace kvasir::compile
