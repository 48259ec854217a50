// DeepSeek V3 and R1: latent attention, experts chosen by group, some that every token takes.
#include "model/architectures/all.h"
#include "model/config_fields.h"
#include "model/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kvasir::model {
namespace {

void ReadLatent(ConfigSource& source, ModelConfig* c) {
  LatentConfig& latent = c->latent;
  latent.rank = source.Int({"kv_lora_rank", "attention.kv_lora_rank"}, 1, 1 << 16);
  latent.q_rank = source.Int({"q_lora_rank", "attention.q_lora_rank"}, 0, 1 << 16, 0);
  latent.rope = source.Int({"qk_rope_head_dim", "rope.dimension_count"}, 1, 4096);
  if (source.is_gguf()) {
    // key_length is that of the cache where the latent form is stored.
    const FieldName plain = {nullptr, "attention.key_length"};
    const FieldName split = {nullptr, "attention.key_length_mla"};
    const FieldName key = source.Has(split) ? split : plain;
    latent.nope = source.Int(key, 1, 4096) - latent.rope;
    if (latent.nope < 1) source.Fail(key, "leaves no columns that are not rotated");
    const FieldName value = {nullptr, "attention.value_length"};
    const FieldName split_value = {nullptr, "attention.value_length_mla"};
    latent.value = source.Int(source.Has(split_value) ? split_value : value, 1, 4096);
  } else {
    latent.nope = source.Int({"qk_nope_head_dim", nullptr}, 1, 4096);
    latent.value = source.Int({"v_head_dim", nullptr}, 1, 4096);
  }
  c->kv_heads = 1;
  c->head_dim = latent.rank + latent.rope;
  c->rope.width = latent.rope;
  c->query_scale = LatentScoreFactor(c->rope) /
                   std::sqrt(static_cast<float>(std::max(1, latent.nope + latent.rope)));
  c->interleaved_rope = source.is_gguf() || source.Bool({"rope_interleave", nullptr}, true);
}

// GGUF calls DeepSeek V2 so too, whose experts are chosen by softmax and groups by their maximum.
void ReadScores(ConfigSource& source, ModelConfig* c) {
  constexpr int32_t kSoftmax = 1, kSigmoid = 2;
  const FieldName field = {nullptr, "expert_gating_func"};
  const int32_t score = source.Int(field, 0, 16, source.is_gguf() ? kSoftmax : kSigmoid);
  graph::Routing& routing = c->moe.routing;
  routing.score =
      score == kSigmoid ? graph::Routing::Score::kSigmoid : graph::Routing::Score::kSoftmax;
  if (score == kSigmoid || (score <= kSoftmax && routing.groups_used == routing.groups)) return;
  source.FailUnsupported(field, fmt::format("{}", score),
                         "2, sigmoid, is; 1, softmax, without groups");
}

void Configure(ConfigSource& source, ModelConfig* c) {
  ReadLatent(source, c);
  ReadExperts(source, c);
  MoeConfig& moe = c->moe;
  const FieldName shared = {"n_shared_experts", "expert_shared_count"};
  const int64_t shared_ffn = int64_t{source.Int(shared, 0, 1024, 0)} * moe.ffn;
  if (shared_ffn > 1 << 24) source.Fail(shared, "the shared experts are too wide");
  moe.shared_ffn = static_cast<int32_t>(std::min<int64_t>(shared_ffn, 1 << 24));
  moe.dense_layers = source.Int({"first_k_dense_replace", "leading_dense_block_count"}, 0, 4096, 0);
  moe.routing.groups = source.Int({"n_group", "expert_group_count"}, 1, 4096, 1);
  moe.routing.groups_used = source.Int({"topk_group", "expert_group_used_count"}, 1, 4096, 1);
  ReadScores(source, c);
  moe.routing.normalize = source.Bool({"norm_topk_prob", "expert_weights_norm"}, !source.is_gguf());
  moe.routing.scale = source.Float({"routed_scaling_factor", "expert_weights_scale"}, 1.0f);
}

constexpr TensorName kTensors[] = {{"self_attn.q_a_proj.", "attn_q_a."},
                                   {"self_attn.q_a_layernorm.", "attn_q_a_norm."},
                                   {"self_attn.q_b_proj.", "attn_q_b."},
                                   {"self_attn.kv_a_proj_with_mqa.", "attn_kv_a_mqa."},
                                   {"self_attn.kv_a_layernorm.", "attn_kv_a_norm."},
                                   {"self_attn.kv_b_proj.", "attn_kv_b."},
                                   {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias"},
                                   {"mlp.gate.", "ffn_gate_inp."},
                                   {"mlp.shared_experts.gate_proj.", "ffn_gate_shexp."},
                                   {"mlp.shared_experts.up_proj.", "ffn_up_shexp."},
                                   {"mlp.shared_experts.down_proj.", "ffn_down_shexp."}};

}  // namespace

const Architecture kDeepseek3 = {.name = "deepseek2",
                                 .hugging_face = "DeepseekV3ForCausalLM",
                                 .configure = &Configure,
                                 .tensors = kTensors};

}  // namespace kvasir::model
