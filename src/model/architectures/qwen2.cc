// Qwen2 and 2.5: Llama with biases of Q, K and V, and perhaps a window over the upper layers.
#include "model/architectures/all.h"
#include "model/config_fields.h"

namespace kvasir::model {

const Architecture kQwen2 = {
    .name = "qwen2", .hugging_face = "Qwen2ForCausalLM", .configure = &ReadQwenWindow};

}  // namespace kvasir::model
