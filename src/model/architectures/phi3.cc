// Phi 3 and 3.5, Phi 4: Llama whose QKV and gate-up are stored as one matrix each, with LongRoPE.
#include "model/architectures/all.h"
#include "model/config_fields.h"

namespace kvasir::model {
namespace {

constexpr TensorName kTensors[] = {{"self_attn.qkv_proj.", "attn_qkv."},
                                   {"mlp.gate_up_proj.", "ffn_up."}};

}  // namespace

const Architecture kPhi3 = {.name = "phi3",
                            .hugging_face = "Phi3ForCausalLM",
                            .configure = &ReadUniformWindow,
                            .tensors = kTensors};

}  // namespace kvasir::model
