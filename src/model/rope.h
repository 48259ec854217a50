// The frequencies of rotary position embeddings (Su et al., RoFormer) and their scalings: linear
// (Chen et al., Position Interpolation), dynamic (NTK-aware), YaRN (Peng et al.), Llama 3's, and
// LongRoPE (Ding et al.), by the formulas of Hugging Face Transformers.
#pragma once

#include <vector>

#include "model/config.h"

namespace kvasir::model {

struct RopeTable {
  std::vector<double> frequencies;  // radians a position, [width / 2]
  float scale = 1.0f;               // of cosines and sines
};

// `context` is the longest that will be served: scalings that depend on the length are fixed to
// it, so that a request's answer does not depend on how long it has become. `trained_context` is
// what the configuration gives as the longest position.
RopeTable MakeRopeTable(const RopeConfig& rope, int32_t context, int32_t trained_context);

// What DeepSeek's YaRN multiplies the scores' scale by besides.
float LatentScoreFactor(const RopeConfig& rope);

}  // namespace kvasir::model
