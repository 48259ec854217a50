// Qwen3 with experts.
#include "model/architectures/all.h"
#include "model/config_fields.h"

namespace kvasir::model {
namespace {

void Configure(ConfigSource& source, ModelConfig* c) {
  ReadQwenWindow(source, c);
  ReadExperts(source, c);
  c->moe.routing.normalize = source.Bool({"norm_topk_prob", nullptr}, source.is_gguf());
  if (source.Int({"decoder_sparse_step", nullptr}, 1, 4096, 1) != 1) {
    source.FailUnsupported({"decoder_sparse_step", nullptr}, "layers without experts between",
                           "1 is");
  }
}

constexpr TensorName kTensors[] = {{"mlp.gate.", "ffn_gate_inp."}};

}  // namespace

const Architecture kQwen3Moe = {.name = "qwen3moe",
                                .hugging_face = "Qwen3MoeForCausalLM",
                                .configure = &Configure,
                                .tensors = kTensors};

}  // namespace kvasir::model
