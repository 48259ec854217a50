// Mistral: Llama with a window over all layers.
#include "model/architectures/all.h"
#include "model/config_fields.h"

namespace kvasir::model {

const Architecture kMistral = {.name = "mistral",
                               .hugging_face = "MistralForCausalLM",
                               .configure = &ReadUniformWindow,
                               .in_gguf = false};

}  // namespace kvasir::model
