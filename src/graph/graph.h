// A small intermediate representation of one forward pass of a transformer: what an architecture
// file builds, passes rewrite, and the compiler turns into a plan.
//
// Values are matrices whose rows belong to tokens of the batch; nodes stand in execution order.
// Weights are named, not held.
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
  kHeads,   // `copies` rows per token: those of the first head, then those of the second, ...
  kRouted,  // `copies` rows per token, one for each expert that it takes, sorted by expert
};

enum class ValueType : uint8_t {
  kFloat,      // float32
  kQuantized,  // int8 with a scale per row and 32 columns
  kBf16,
};

enum class Op : uint8_t {
  kEmbed,       // () -> x: the embedding rows of the tokens, times scale
  kRmsNorm,     // (x) -> y, weight: the norm's; of each head where head_width is set
  kMatmul,      // (x [, residual]) -> y = x W^T (+ bias) (+ residual), weights stacked by rows
  kRope,        // (x) -> each head of it rotated by the tokens' positions
  kScale,       // (x) -> x * scale
  kKvWrite,     // (k, v) or (parts of k, where V is its beginning) -> (): into the cache of `layer`
  kAttention,   // (q) -> o, causal, over the KV cache of `layer`; weight: sinks, if any
  kActivate,    // (x) -> gate(x)
  kMul,         // (a, b) -> a * b
  kAdd,         // (a, b) -> a + b
  kSelectRows,  // (x) -> its rows that are wanted
  kQuantize,    // (x) -> x as int8 or BF16, its columns in the order of those of `weights`, if any
  kGated,       // (x, up) -> gate(x) * up, or what the gate makes of both
  // Heads apart: rows that a product of their own multiplies.
  kSplitHeads,  // (x) -> of each head columns [column, column + width of y), as rows kHeads
  kJoinHeads,   // (a [, b]) of kHeads -> per token the heads side by side, each a's and b's columns
  // Experts.
  kRoute,          // (scores) -> [expert, weight] of those that a token takes; bias: of the choice
  kDispatch,       // (x, routing) -> a row kRouted for each expert of a token
  kCombine,        // (y of kRouted, routing) -> per token the weighted sum, in order of rank
  kGroupedMatmul,  // (x) of kHeads or kRouted -> y: the rows of part p times the p-th of `parts`
  // Made by passes:
  kRopeKvWrite,  // (q, k, v) -> q rotated and scaled; k rotated and v into the KV cache
};

const char* Name(Op op);

// The nonlinearity of a feed-forward layer.
enum class GateKind : uint8_t {
  kSilu,     // x / (1 + exp(-x))
  kGelu,     // the tanh approximation
  kClamped,  // of gpt-oss: min(x, limit) / (1 + exp(-alpha x)) * (clamp(up, limit) + 1)
};
struct Gate {
  GateKind kind = GateKind::kSilu;
  float alpha = 1.0f;
  float limit = 0.0f;

  friend bool operator==(const Gate&, const Gate&) = default;
};

// How a token chooses its experts. Of equal scores the lower expert counts as better.
struct Routing {
  enum class Score : uint8_t { kSoftmax, kSigmoid };

  int32_t experts = 0;
  int32_t used = 0;  // by each token
  // The experts lie in `groups` of equal size; the best `groups_used` by the sum of their two best
  // scores are chosen from. 1 of 1: all.
  int32_t groups = 1;
  int32_t groups_used = 1;
  Score score = Score::kSoftmax;
  bool normalize = true;  // the weights of those chosen sum to 1
  float scale = 1.0f;     // of the weights, at the end

  friend bool operator==(const Routing&, const Routing&) = default;
};

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
  int32_t copies = 1;  // rows per token
};

struct Node {
  Op op;
  std::vector<Operand> inputs;
  std::vector<ValueId> outputs;
  // Tensor names; a product's are stacked in this order, of kGroupedMatmul those of the first part
  // before those of the second.
  std::vector<std::string> weights;
  std::vector<std::string> biases;  // one per weight, empty where there is none
  int32_t layer = -1;
  float scale = 1.0f;      // kScale, kEmbed, kRopeKvWrite
  bool residual = false;   // kMatmul: the last input is added to the product
  int32_t parts = 1;       // kGroupedMatmul
  int32_t head_width = 0;  // columns of a head
  int32_t column = 0;      // kSplitHeads
  int32_t table = 0;       // kRope, kRopeKvWrite: which rotation
  int32_t window = 0;      // kAttention: positions that a query sees; 0: all
  float softcap = 0.0f;    // kAttention, kMatmul: y = softcap * tanh(y / softcap); 0: none
  float offset = 0.0f;     // kRmsNorm: added to the weight
  Gate gate;               // kActivate, kGated
  Routing routing;         // kRoute, kDispatch
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  ValueId logits = -1;  // the result

  ValueId AddValue(std::string name, int32_t width, Rows rows = Rows::kTokens, int32_t copies = 1);
  // Appends a node with one new output of `width`, and returns that whole.
  Operand Append(Node node, std::string name, int32_t width, Rows rows = Rows::kTokens,
                 int32_t copies = 1);
  Operand Whole(ValueId value) const { return {value, 0, values[value].width}; }
};

// Every operand lies inside a value that an earlier node made, every value is made once, arities
// and widths fit, and the result exists. The error names the node.
Status Verify(const Graph& graph);

// One line a node, for people.
std::string Print(const Graph& graph);

}  // namespace kvasir::graph
