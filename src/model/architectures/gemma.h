// What Gemma 2 and 3 have in common.
#pragma once

#include "model/architecture.h"

namespace kvasir::model {

inline constexpr TensorName kGemmaTensors[] = {
    {"post_attention_layernorm.", "post_attention_norm."},
    {"pre_feedforward_layernorm.", "ffn_norm."},
    {"post_feedforward_layernorm.", "post_ffw_norm."}};

// `layers_of_27b`: the size whose scores GGUF files don't say the scale of.
void ConfigureGemma(ConfigSource& source, int32_t layers_of_27b, ModelConfig* config);

}  // namespace kvasir::model
