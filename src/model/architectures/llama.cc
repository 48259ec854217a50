// Llama 2 and 3, SmolLM2. GGUF also calls Mistral and Mixtral so.
#include "model/architectures/all.h"
#include "model/config_fields.h"

namespace kvasir::model {
namespace {

void Configure(ConfigSource& source, ModelConfig* c) {
  c->interleaved_rope = source.is_gguf();
  ReadUniformWindow(source, c);
  if (source.is_gguf()) ReadExperts(source, c);
}

}  // namespace

const Architecture kLlama = {
    .name = "llama", .hugging_face = "LlamaForCausalLM", .configure = &Configure};

}  // namespace kvasir::model
