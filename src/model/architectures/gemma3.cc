// Gemma 3, text: norms on both sides of each block and over the heads of Q and K, a window over
// five of six layers, which rotate by frequencies of their own.
#include "model/architectures/all.h"
#include "model/architectures/gemma.h"
#include "model/config_fields.h"

namespace kvasir::model {
namespace {

void ReadRotations(ConfigSource& source, ModelConfig* c) {
  c->has_window_rope = true;
  c->window_rope = {.theta = 10000.0f, .width = c->head_dim};
  if (source.is_gguf()) return;
  if (source.Has({"rope_parameters.full_attention.rope_type", nullptr})) {
    ReadRopeObject(source, "rope_parameters.full_attention", c->head_dim, &c->rope);
    ReadRopeObject(source, "rope_parameters.sliding_attention", c->head_dim, &c->window_rope);
  } else {
    c->window_rope.theta = source.Float({"rope_local_base_freq", nullptr}, 10000.0f);
  }
}

void Configure(ConfigSource& source, ModelConfig* c) {
  ConfigureGemma(source, /*layers_of_27b=*/62, c);
  ReadRotations(source, c);
  const int32_t period = source.Int({"_sliding_window_pattern", nullptr}, 1, 4096,
                                    source.Int({"sliding_window_pattern", nullptr}, 1, 4096, 6));
  ReadLayerWindows(source, period, period - 1, c);
  if (source.Has({"final_logit_softcapping", nullptr})) {
    c->logit_softcap = source.Float({"final_logit_softcapping", nullptr});
  }
}

}  // namespace

const Architecture kGemma3 = {.name = "gemma3",
                              .hugging_face = "Gemma3ForCausalLM",
                              .configure = &Configure,
                              .tensors = kGemmaTensors};

}  // namespace kvasir::model
