// Graph rewrites. Each is small, keeps the result the same bit by bit (no pass reorders a sum) but
// where it says so, and leaves a graph that Verify accepts.
#pragma once

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

// Puts a quantise node before every product whose weights want other activations than float.
void InsertQuantize(graph::Graph& graph,
                    const std::function<graph::ValueType(const std::string&)>& activation_type);

// A norm or gate that only a quantise node reads -> writes the quantised form itself.
void FuseQuantize(graph::Graph& graph);

// Drops nodes whose results nobody reads.
void RemoveDeadNodes(graph::Graph& graph);

}  // namespace kvasir::compile
