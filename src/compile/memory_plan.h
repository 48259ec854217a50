// Where the values of a graph lie in one arena: values that are never alive together share memory.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace kvasir::compile {

struct MemoryPlan {
  std::vector<int64_t> offsets;  // per value; -1 for values that no node makes, and for the result
  int64_t arena_bytes = 0;
  int64_t peak_live_bytes = 0;  // no plan can be smaller
};

// `token_rows` and `logit_rows` are the most rows of each kind. The output of a residual product
// lies where the residual does. Greedy by size (Pisarchyk and Lee, Efficient Memory Management for
// Deep Neural Net Inference, 2020), then again with what came to lie highest placed first, until
// the arena is as small as it can be or that has been tried often enough.
MemoryPlan PlanMemory(const graph::Graph& graph, int64_t token_rows, int64_t logit_rows);

}  // namespace kvasir::compile
