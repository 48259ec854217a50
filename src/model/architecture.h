// From a checkpoint's configuration to the graph of one forward pass. One file an architecture.
#pragma once

#include "base/status.h"
#include "graph/graph.h"
#include "model/checkpoint.h"

namespace kvasir::model {

// Builds the graph of the checkpoint's architecture after checking that the configuration makes
// sense and that every tensor exists with the shape that the configuration asks for; the error
// names the tensor, the expected and the found shape.
StatusOr<graph::Graph> BuildGraph(const Checkpoint& checkpoint);

// Llama 2 and 3, SmolLM2, Mistral, and Qwen2 (which adds biases to Q, K and V).
StatusOr<graph::Graph> BuildLlama(const Checkpoint& checkpoint);

}  // namespace kvasir::model
