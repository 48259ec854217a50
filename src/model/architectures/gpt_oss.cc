// gpt-oss: experts with a clamped gate, sinks in attention, a window over every other layer, biases
// everywhere.
#include "model/architectures/all.h"
#include "model/config_fields.h"

namespace kvasir::model {
namespace {

void Configure(ConfigSource& source, ModelConfig* c) {
  ReadExperts(source, c);
  c->gate = {.kind = graph::GateKind::kClamped,
             .alpha = source.Float({"swiglu_alpha", nullptr}, 1.702f),
             .limit = source.Float({"swiglu_limit", nullptr}, 7.0f)};
  ReadLayerWindows(source, /*period=*/2, /*full_layer=*/1, c);
}

// The names of GGUF differ from those of other models too: see SplitTensors.
constexpr TensorName kTensors[] = {{"self_attn.sinks", "attn_sinks.weight"},
                                   {"mlp.router.", "ffn_gate_inp."}};

}  // namespace

const Architecture kGptOss = {.name = "gpt-oss",
                              .hugging_face = "GptOssForCausalLM",
                              .configure = &Configure,
                              .tensors = kTensors};

}  // namespace kvasir::model
