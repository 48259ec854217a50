// The graph of a decoder-only transformer, as its configuration describes it.
#pragma once

#include "base/status.h"
#include "graph/graph.h"
#include "model/checkpoint.h"

namespace kvasir::model {

// The configuration has been checked (BuildGraph). An error names the tensor that is missing or
// has another shape.
StatusOr<graph::Graph> BuildDecoder(const Checkpoint& checkpoint);

}  // namespace kvasir::model
