// The compiled model as data: packed weights and the nodes to run (CompiledModel, which a file can
// hold), and with it all that depends on how it is run (Plan). Made by compile/, executed by
// runtime/.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "graph/graph.h"
#include "model/checkpoint.h"
#include "ops/cpu/kernels.h"
#include "ops/kv_type.h"
#include "ops/packing.h"

namespace kvasir::plan {

// Where a token's K and V of one layer lie inside a block. A block is contiguous over its layers:
// [layer][KV head]{K: [block_size / 16][k_dim][16], V: [block_size][v_dim], and of types that have
// scales those of K: [block_size] and of V: [block_size], in float}, padded to 4 KiB, so that a
// block moves as one extent and a layer as one slice. Latent attention stores no V: it is the first
// v_dim columns of K, which bear V's scale; K's is that of the columns behind them.
struct KvLayout {
  int32_t block_size = 16;  // tokens, a multiple of 16
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t k_dim = 0;
  int32_t v_dim = 0;
  bool v_in_k = false;
  ops::KvType type = ops::KvType::kBf16;

  int64_t element_bytes() const { return ops::Info(type).element_bytes; }
  int64_t k_bytes() const { return int64_t{block_size} * k_dim * element_bytes(); }
  int64_t v_bytes() const { return v_in_k ? 0 : int64_t{block_size} * v_dim * element_bytes(); }
  int64_t scale_bytes() const { return int64_t{block_size} * ops::Info(type).scale_bytes; }
  int64_t head_bytes() const { return k_bytes() + v_bytes() + 2 * scale_bytes(); }
  int64_t layer_bytes() const { return kv_heads * head_bytes(); }
  int64_t block_bytes() const { return (layers * layer_bytes() + 4095) / 4096 * 4096; }

  // Within a head's bytes.
  int64_t v_offset() const { return k_bytes(); }
  int64_t k_scale_offset() const { return k_bytes() + v_bytes(); }
  int64_t v_scale_offset() const { return k_scale_offset() + scale_bytes(); }
};

// What graph::Node says, with weights by index.
struct PlanNode {
  graph::Op op;
  std::vector<graph::Operand> inputs;
  graph::ValueId output = -1;  // -1: none
  int32_t matrix = -1;         // index into matrices
  int32_t vector = -1;         // norm weight or sinks, index into vectors
  int32_t bias = -1;           // index into vectors
  int32_t order = -1;          // of columns, index into orders
  int32_t layer = -1;
  float scale = 1.0f;
  bool residual = false;  // the output lies where the residual operand does
  int32_t parts = 1;      // the matrix' rows are made of as many equal ones
  int32_t head_width = 0;
  int32_t column = 0;
  int32_t table = 0;  // index into rotations
  int32_t window = 0;
  float softcap = 0.0f;
  graph::Gate gate;
  graph::Routing routing;
};

// Cosines and sines of the rotation, [max_model_len][width / 2] each.
struct Rotation {
  int32_t width = 0;  // rotated columns of a head, from its first
  std::vector<float> cosines;
  std::vector<float> sines;
};

struct EmbeddingTable {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const uint8_t* data = nullptr;  // stored rows, in a mapped file
};

struct CompiledModel {
  // What it is.
  std::string architecture;
  std::string name;         // its own, for people
  std::string fingerprint;  // of configuration and weights
  std::string activations;  // compile::Activations by name
  model::TextFiles text;
  std::vector<int32_t> eos_ids;

  // Shape.
  int32_t layers = 0;
  int32_t hidden = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t k_dim = 0;
  int32_t v_dim = 0;
  bool v_in_k = false;
  int32_t vocab = 0;
  int32_t context_length = 0;
  float rms_eps = 0;
  std::vector<model::RopeConfig> ropes;  // what the nodes' tables index
  // Of its cache, where nobody says otherwise.
  ops::KvType kv_type = ops::KvType::kBf16;

  // What it computes.
  std::vector<graph::Value> values;
  std::vector<PlanNode> nodes;
  graph::ValueId logits = -1;
  std::vector<ops::PackedMatrix> matrices;
  std::vector<std::vector<float>> vectors;
  std::vector<std::vector<int32_t>> orders;  // column i of what is made is column order[i]
  EmbeddingTable embedding;

  // Keeps alive what `embedding` points into, and views of matrices that own nothing.
  std::shared_ptr<const void> source;
};

struct Plan : CompiledModel {
  int32_t max_model_len = 0;
  int32_t max_batch_tokens = 0;
  int32_t max_output_rows = 0;
  KvLayout kv;
  std::vector<Rotation> rotations;  // one for each of `ropes`
  // By layer what keys are stored less, [kv_heads x k_dim]; empty: nothing (compile/key_centers.h).
  std::vector<std::vector<float>> key_centers;
  std::vector<int64_t> offsets;  // of each value in the arena; the logits have none
  int64_t arena_bytes = 0;
  const ops::CpuKernels* kernels = nullptr;
  // Identifies everything that decides a bit of the result besides the weights.
  std::string numerics_id;
};

// The values and nodes as a graph without weights, for verifying and planning memory.
graph::Graph GraphOf(const CompiledModel& model);

// Bytes that `rows` rows of a value take.
int64_t ValueBytes(graph::ValueType type, int64_t rows, int64_t width);

}  // namespace kvasir::plan
