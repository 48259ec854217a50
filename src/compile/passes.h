// Graph rewrites. Each is small, keeps the result the same bit by bit (no pass reorders a sum) but
// where it says so, and leaves a graph that Verify accepts.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <functional>
#include <string>

#include "graph/graph.h"

namespace kvasir::compile {

// Rotation of Q and K, the scale of Q and the KV write of a layer -> one node.
void FuseRopeKvWrite(graph::Graph& graph);

// Products of one input by several matrices -> one product by the stacked matrix (QKV, gate and
// up; of experts those of each), where `stackable(a, b)` says that two weights can be stacked.
void FuseSharedInput(graph::Graph& graph,
                     const std::function<bool(const std::string&, const std::string&)>& stackable);

// gate(x) * up -> one node.
void FuseGate(graph::Graph& graph);

// A scale of what only it reads of an embedding -> the embedding's own.
void FoldScales(graph::Graph& graph);

// x + product, where neither is used elsewhere afterwards -> a product that adds onto x in place.
void FuseResidual(graph::Graph& graph);

// What products, attention and gates alone read -> BF16. The stream of residuals, what is rotated
// or normalised next, and the logits stay float. (The only pass that changes the result.)
void NarrowToBf16(graph::Graph& graph);

// What a product's weights want of its input.
struct Activation {
  graph::ValueType type = graph::ValueType::kFloat;
  absl::Span<const int32_t> order = {};  // its columns in another order; empty: as they are

  Activation(graph::ValueType t, absl::Span<const int32_t> o = {}) : type(t), order(o) {}
  friend bool operator==(const Activation&, const Activation&) = default;
};

// Puts a quantise node before every product whose weights want other activations than float. A node
// that changes the order of columns names a weight whose order it is.
void InsertQuantize(graph::Graph& graph,
                    const std::function<Activation(const std::string&)>& activation_of);

// A norm or gate that only a quantise node reads -> writes the quantised form itself.
void FuseQuantize(graph::Graph& graph);

// Drops nodes whose results nobody reads.
void RemoveDeadNodes(graph::Graph& graph);

}  // namespace kvasir::compile
