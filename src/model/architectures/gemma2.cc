// Gemma 2: norms on both sides of each block, soft caps, a window over every other layer.
#include "model/architectures/all.h"
#include "model/architectures/gemma.h"
#include "model/config_fields.h"

namespace kvasir::model {
namespace {

void Configure(ConfigSource& source, ModelConfig* c) {
  ConfigureGemma(source, /*layers_of_27b=*/46, c);
  c->attention_softcap = source.Float({"attn_logit_softcapping", "attn_logit_softcapping"}, 50.0f);
  c->logit_softcap = source.Float({"final_logit_softcapping", "final_logit_softcapping"}, 30.0f);
  ReadLayerWindows(source, /*period=*/2, /*full_layer=*/1, c);
}

}  // namespace

const Architecture kGemma2 = {.name = "gemma2",
                              .hugging_face = "Gemma2ForCausalLM",
                              .configure = &Configure,
                              .tensors = kGemmaTensors};

}  // namespace kvasir::model
