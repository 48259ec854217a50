// Qwen3: a norm over each head of Q and K.
#include "model/architectures/all.h"
#include "model/config_fields.h"

namespace kvasir::model {

const Architecture kQwen3 = {
    .name = "qwen3", .hugging_face = "Qwen3ForCausalLM", .configure = &ReadQwenWindow};

}  // namespace kvasir::model
