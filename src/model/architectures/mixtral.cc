// Mixtral: Mistral with experts.
#include "model/architectures/all.h"
#include "model/config_fields.h"

namespace kvasir::model {
namespace {

void Configure(ConfigSource& source, ModelConfig* c) {
  ReadUniformWindow(source, c);
  ReadExperts(source, c);
}

constexpr TensorName kTensors[] = {{"block_sparse_moe.gate.", "ffn_gate_inp."},
                                   {"block_sparse_moe.experts.*.w1.", "ffn_gate.*."},
                                   {"block_sparse_moe.experts.*.w3.", "ffn_up.*."},
                                   {"block_sparse_moe.experts.*.w2.", "ffn_down.*."}};

}  // namespace

const Architecture kMixtral = {.name = "mixtral",
                               .hugging_face = "MixtralForCausalLM",
                               .configure = &Configure,
                               .tensors = kTensors,
                               .in_gguf = false};

}  // namespace kvasir::model
