// What a model's configuration says, the same whether it came from GGUF or from config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace kvasir::model {

// How the rotary frequencies of a context longer than the one trained on are made (rope.h).
enum class RopeScaling : uint8_t { kNone, kLinear, kDynamic, kYarn, kLlama3, kLongRope };

struct RopeConfig {
  float theta = 10000.0f;
  int32_t width = 0;  // rotated columns of a head, from its first
  RopeScaling scaling = RopeScaling::kNone;
  float factor = 1.0f;
  int32_t original_context = 0;     // that the model was trained on
  float attention_factor = 0.0f;    // of cosines and sines; 0: as the scaling's formula says
  float low_frequency = 1.0f;       // llama3
  float high_frequency = 4.0f;      // llama3
  float beta_fast = 32.0f;          // YaRN
  float beta_slow = 1.0f;           // YaRN
  float mscale = 0.0f;              // YaRN of DeepSeek
  float mscale_all = 0.0f;          // YaRN of DeepSeek
  bool truncate = true;             // YaRN: bounds of the ramp are integers
  std::vector<float> factors;       // longrope up to the original context; else a divisor of each
                                    // frequency, empty: none
  std::vector<float> long_factors;  // longrope beyond it
};

// Mixture of experts. No experts: the feed-forward is dense.
struct MoeConfig {
  int32_t ffn = 0;           // of an expert
  int32_t shared_ffn = 0;    // of those that every token takes, together; 0: none
  int32_t dense_layers = 0;  // leading layers without experts
  graph::Routing routing;
};

// Multi-head latent attention: K and V of all heads are products of one latent row a token.
struct LatentConfig {
  int32_t rank = 0;    // of the latent; 0: attention is plain
  int32_t q_rank = 0;  // of the query's own bottleneck; 0: none
  int32_t nope = 0;    // columns of a head's query that are not rotated
  int32_t rope = 0;    // those that are; shared by all heads' keys
  int32_t value = 0;   // columns of a head's value
};

// How the weights of a checkpoint that is quantised already are stored (quantization.h).
enum class QuantMethod : uint8_t { kNone, kAwq, kGptq, kCompressedTensors, kFp8, kMxfp4 };
struct QuantizationConfig {
  QuantMethod method = QuantMethod::kNone;
  int32_t zero_offset = 0;  // what is to be added to stored zero points
};

struct ModelConfig {
  std::string architecture;  // a name of architecture.h's table
  std::string name;
  int32_t layers = 0;
  int32_t hidden = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t ffn = 0;
  int32_t vocab = 0;
  int32_t context_length = 0;
  float rms_eps = 1e-5f;
  RopeConfig rope;
  RopeConfig window_rope;  // of layers with a window, where they have one of their own
  bool has_window_rope = false;
  // The rows of Q and K lie in the order of the interleaved rotation (GGUF of llama), not of the
  // half-split one.
  bool interleaved_rope = false;
  int32_t sliding_window = 0;  // positions that a query of a windowed layer sees; 0: none
  std::vector<bool> windowed;  // by layer; empty: all, where there is a window
  graph::Gate gate;            // of the feed-forward
  float norm_offset = 0.0f;    // added to the weights of norms
  float embedding_scale = 1.0f;
  float query_scale = 0.0f;  // of scores; 0: 1 / sqrt(head_dim)
  float attention_softcap = 0.0f;
  float logit_softcap = 0.0f;
  bool own_head = false;  // the embedding is not reused as output matrix
  MoeConfig moe;
  LatentConfig latent;
  QuantizationConfig quantization;
  std::vector<int32_t> eos_ids;

  bool HasWindow(int32_t layer) const {
    return sliding_window > 0 && (windowed.empty() || windowed[layer]);
  }
  bool HasExperts(int32_t layer) const {
    return moe.routing.experts > 0 && layer >= moe.dense_layers;
  }
  const RopeConfig& RopeOf(int32_t layer) const {
    return has_window_rope && HasWindow(layer) ? window_rope : rope;
  }
};

}  // namespace kvasir::model
