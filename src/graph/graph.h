// A small intermediate representation of one forward pass of a transformer: what an architecture
// file builds, passes rewrite, and the compiler turns into a plan.
//
// Values are matrices of one row per token of the batch (or per token whose logits are wanted);
// nodes stand in execution order. Weights are named, not held.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace kvasir::graph {

using ValueId = int32_t;

enum class Rows : uint8_t {
  kTokens,  // one row per token of the batch
  kOutput,  // one row for each token whose logits or hidden state are wanted
};

enum class ValueType : uint8_t {
  kFloat,      // float32
  kQuantized,  // int8 with a scale per row and 32 columns
  kBf16,
};

enum class Op : uint8_t {
  kEmbed,       // () -> x: the embedding rows of the tokens
  kRmsNorm,     // (x) -> y, weight: the norm's
  kMatmul,      // (x [, residual]) -> y = x W^T (+ bias) (+ residual), weights stacked by rows
  kRope,        // (q or k) -> rotated by the tokens' positions
  kScale,       // (x) -> x * scale
  kKvWrite,     // (k, v) -> (): into the KV cache of `layer`
  kAttention,   // (q) -> o, causal, over the KV cache of `layer`
  kSilu,        // (x) -> x / (1 + exp(-x))
  kMul,         // (a, b) -> a * b
  kAdd,         // (a, b) -> a + b
  kSelectRows,  // (x) -> its rows that are wanted
  kQuantize,    // (x) -> x as int8 or BF16
  // Made by passes:
  kSwiGlu,       // (gate, up) -> silu(gate) * up
  kRopeKvWrite,  // (q, k, v) -> q rotated and scaled; k rotated and v into the KV cache
};

const char* Name(Op op);

// Columns [column, column + width) of a value.
struct Operand {
  ValueId value = -1;
  int32_t column = 0;
  int32_t width = 0;

  friend bool operator==(const Operand&, const Operand&) = default;
};

struct Value {
  std::string name;
  Rows rows = Rows::kTokens;
  ValueType type = ValueType::kFloat;
  int32_t width = 0;
};

struct Node {
  Op op;
  std::vector<Operand> inputs;
  std::vector<ValueId> outputs;
  std::vector<std::string> weights;  // tensor names; a matmul's are stacked in this order
  std::vector<std::string> biases;   // one per weight, empty where there is none
  int32_t layer = -1;
  float scale = 1.0f;     // kScale, kRopeKvWrite
  bool residual = false;  // kMatmul: the last input is added to the product
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  ValueId logits = -1;  // the result

  ValueId AddValue(std::string name, int32_t width, Rows rows = Rows::kTokens);
  // Appends a node with one new output of `width`, and returns that whole.
  Operand Append(Node node, std::string name, int32_t width, Rows rows = Rows::kTokens);
  Operand Whole(ValueId value) const { return {value, 0, values[value].width}; }
};

// Every operand lies inside a value that an earlier node made, every value is made once, arities
// and widths fit, and the result exists. The error names the node.
Status Verify(const Graph& graph);

// One line a node, for people.
std::string Print(const Graph& graph);

}  // namespace kvasir::graph
