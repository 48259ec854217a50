#include "model/config_fields.h"

#include <algorithm>
#include <cmath>

#include "model/architecture.h"

namespace kvasir::model {
namespace {

constexpr int64_t kMaxLength = 1 << 24;

int32_t Window(ConfigSource& source) {
  return source.Int({"sliding_window", "attention.sliding_window"}, 0, kMaxLength, 0);
}

// True where layer_types says which layers have a window.
bool ReadLayerTypes(ConfigSource& source, ModelConfig* c) {
  const FieldName field = {"layer_types", nullptr};
  const std::vector<std::string> types = source.Strings(field);
  if (types.empty()) return false;
  if (static_cast<int32_t>(types.size()) != c->layers) {
    source.Fail(field, "does not hold one for each layer");
    return true;
  }
  c->windowed.clear();
  for (const std::string& type : types) {
    if (type != "sliding_attention" && type != "full_attention") {
      source.FailUnsupported(field, type, "sliding_attention and full_attention are");
    }
    c->windowed.push_back(type == "sliding_attention");
  }
  return true;
}

RopeScaling ScalingOf(ConfigSource& source, FieldName field, const std::string& type) {
  if (type == "default" || type == "none") return RopeScaling::kNone;
  if (type == "linear") return RopeScaling::kLinear;
  if (type == "dynamic") return RopeScaling::kDynamic;
  if (type == "yarn") return RopeScaling::kYarn;
  if (type == "llama3") return RopeScaling::kLlama3;
  if (type == "longrope" || type == "su") return RopeScaling::kLongRope;
  source.FailUnsupported(field, type, "linear, dynamic, yarn, llama3 and longrope are");
  return RopeScaling::kNone;
}

void CheckRope(ConfigSource& source, FieldName field, const RopeConfig& rope) {
  if (rope.scaling == RopeScaling::kLlama3 && !(rope.low_frequency < rope.high_frequency)) {
    source.Fail(field, "high_freq_factor is not above low_freq_factor");
  }
  const auto positive = [](float f) { return f > 0.0f && std::isfinite(f); };
  for (const std::vector<float>* factors : {&rope.factors, &rope.long_factors}) {
    if (!std::all_of(factors->begin(), factors->end(), positive)) {
      source.Fail(field, "has a factor that is not positive and finite");
    }
  }
  const size_t half = rope.width / 2;
  if (rope.scaling == RopeScaling::kLongRope && !source.is_gguf() &&
      (rope.factors.size() != half || rope.long_factors.size() != half)) {
    source.Fail(field, "short_factor and long_factor must each hold half the rotated columns");
  }
}

void ReadGgufRope(ConfigSource& source, ModelConfig* c) {
  RopeConfig& rope = c->rope;
  const FieldName type = {nullptr, "rope.scaling.type"};
  rope.theta = source.Float({nullptr, "rope.freq_base"}, 10000.0f);
  rope.width = source.Int({nullptr, "rope.dimension_count"}, 1, 4096, c->head_dim);
  rope.scaling = ScalingOf(source, type, source.String(type, "none"));
  rope.original_context = source.Int({nullptr, "rope.scaling.original_context_length"}, 1,
                                     kMaxLength, c->context_length);
  if (rope.scaling == RopeScaling::kLinear || rope.scaling == RopeScaling::kYarn) {
    rope.factor = source.Float({nullptr, "rope.scaling.factor"});
  }
  rope.attention_factor = source.Has({nullptr, "rope.scaling.attn_factor"})
                              ? source.Float({nullptr, "rope.scaling.attn_factor"})
                              : 0.0f;
  rope.beta_fast = source.Float({nullptr, "rope.scaling.yarn_beta_fast"}, 32.0f);
  rope.beta_slow = source.Float({nullptr, "rope.scaling.yarn_beta_slow"}, 1.0f);
  // 0.1 times DeepSeek's mscale_all_dim, to which its mscale is equal.
  const FieldName multiplier = {nullptr, "rope.scaling.yarn_log_multiplier"};
  if (source.Has(multiplier)) rope.mscale = rope.mscale_all = 10.0f * source.Float(multiplier);
}

void ReadHuggingFaceRope(ConfigSource& source, ModelConfig* c) {
  RopeConfig& rope = c->rope;
  const float partial = source.Float({"partial_rotary_factor", nullptr}, 1.0f);
  rope.width = static_cast<int32_t>(static_cast<float>(c->head_dim) * std::min(partial, 1.0f));
  rope.theta = source.Float({"rope_theta", nullptr}, 10000.0f);
  const char* old_place = "original_max_position_embeddings";
  rope.original_context = source.Int({old_place, nullptr}, 1, kMaxLength, c->context_length);
  for (const char* object : {"rope_parameters", "rope_scaling"}) {
    const std::string path = object;
    if (!source.Has({(path + ".rope_type").c_str(), nullptr}) &&
        !source.Has({(path + ".type").c_str(), nullptr})) {
      continue;
    }
    return ReadRopeObject(source, path, c->head_dim, &rope);
  }
}

}  // namespace

void ReadRopeObject(ConfigSource& source, const std::string& path, int32_t head_dim,
                    RopeConfig* rope) {
  const auto with = [&](const char* name, const auto& read) {
    const std::string whole = path + "." + name;
    return read(FieldName{whole.c_str(), nullptr});
  };
  const auto number = [&](const char* name, std::optional<float> fallback) {
    return with(name, [&](FieldName field) { return source.Float(field, fallback); });
  };
  const auto floats = [&](const char* name) {
    return with(name, [&](FieldName field) { return source.Floats(field); });
  };
  const auto has = [&](const char* name) {
    return with(name, [&](FieldName field) { return source.Has(field); });
  };
  const char* type_name = has("rope_type") ? "rope_type" : "type";
  with(type_name, [&](FieldName field) {
    rope->scaling = ScalingOf(source, field, source.String(field, "default"));
  });
  rope->theta = number("rope_theta", rope->theta);
  if (has("partial_rotary_factor")) {
    const float partial = std::min(number("partial_rotary_factor", std::nullopt), 1.0f);
    rope->width = static_cast<int32_t>(static_cast<float>(head_dim) * partial);
  }
  const bool must_say = rope->scaling == RopeScaling::kLlama3;
  with("original_max_position_embeddings", [&](FieldName field) {
    rope->original_context =
        source.Int(field, 1, kMaxLength,
                   must_say ? std::nullopt : std::optional<int32_t>(rope->original_context));
  });
  const bool scaled = rope->scaling != RopeScaling::kNone;
  const bool says_itself = rope->scaling == RopeScaling::kLongRope;
  if (scaled) {
    rope->factor = number("factor", says_itself ? std::optional<float>(1.0f) : std::nullopt);
  }
  if (rope->scaling == RopeScaling::kLlama3) {
    rope->low_frequency = number("low_freq_factor", std::nullopt);
    rope->high_frequency = number("high_freq_factor", std::nullopt);
  }
  if (has("attention_factor")) rope->attention_factor = number("attention_factor", std::nullopt);
  rope->beta_fast = number("beta_fast", 32.0f);
  rope->beta_slow = number("beta_slow", 1.0f);
  if (has("mscale")) rope->mscale = number("mscale", std::nullopt);
  if (has("mscale_all_dim")) rope->mscale_all = number("mscale_all_dim", std::nullopt);
  rope->truncate = with("truncate", [&](FieldName field) { return source.Bool(field, true); });
  if (rope->scaling == RopeScaling::kLongRope) {
    rope->factors = floats("short_factor");
    rope->long_factors = floats("long_factor");
  }
  CheckRope(source, {path.c_str(), nullptr}, *rope);
}

void ReadUniformWindow(ConfigSource& source, ModelConfig* c) {
  c->sliding_window = Window(source);
  ReadLayerTypes(source, c);
}

void ReadQwenWindow(ConfigSource& source, ModelConfig* c) {
  if (!source.Bool({"use_sliding_window", nullptr}, false)) return;
  c->sliding_window = Window(source);
  if (ReadLayerTypes(source, c)) return;
  const int32_t first = source.Int({"max_window_layers", nullptr}, 0, 4096, 0);
  for (int32_t layer = 0; layer < c->layers; ++layer) c->windowed.push_back(layer >= first);
}

void ReadLayerWindows(ConfigSource& source, int32_t period, int32_t full_layer, ModelConfig* c) {
  c->sliding_window = Window(source);
  if (ReadLayerTypes(source, c)) return;
  for (int32_t layer = 0; layer < c->layers; ++layer) {
    c->windowed.push_back(layer % period != full_layer);
  }
}

void ReadExperts(ConfigSource& source, ModelConfig* c) {
  const FieldName count = {nullptr, "expert_count"};
  if (source.is_gguf() && !source.Has(count)) return;
  const char* names[] = {"num_local_experts", "num_experts", "n_routed_experts"};
  FieldName experts = {names[0], count.gguf};
  for (const char* name : names) {
    if (source.Has({name, nullptr})) experts.hugging_face = name;
  }
  c->moe.routing.experts = source.Int(experts, 0, 4096);
  if (c->moe.routing.experts == 0) return;
  c->moe.routing.used = source.Int({"num_experts_per_tok", "expert_used_count"}, 1, 4096);
  const FieldName width = {"moe_intermediate_size", "expert_feed_forward_length"};
  c->moe.ffn = source.Int(width, 1, 1 << 24, c->ffn);
}

StatusOr<ModelConfig> ReadConfig(const Architecture& architecture, ConfigSource& source) {
  ModelConfig c;
  c.architecture = architecture.name;
  c.layers = source.Int({"num_hidden_layers", "block_count"}, 1, 4096);
  c.hidden = source.Int({"hidden_size", "embedding_length"}, 1, 1 << 20);
  c.heads = source.Int({"num_attention_heads", "attention.head_count"}, 1, 4096);
  c.kv_heads = source.Int({"num_key_value_heads", "attention.head_count_kv"}, 1, 4096, c.heads);
  const FieldName head = {"head_dim", "attention.key_length"};
  c.head_dim = source.Int(head, 1, 4096, c.hidden / c.heads);
  if (c.head_dim == 0) source.Fail(head, "missing, and there are fewer columns than heads");
  c.ffn = source.Int({"intermediate_size", "feed_forward_length"}, 1, 1 << 24);
  // GGUF always says these two.
  const bool gguf = source.is_gguf();
  c.context_length = source.Int({"max_position_embeddings", "context_length"}, 1, kMaxLength,
                                gguf ? std::nullopt : std::optional<int32_t>(2048));
  c.rms_eps = source.Float({"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
                           gguf ? std::nullopt : std::optional<float>(1e-6f));
  // Where nothing is said, a model without an output matrix reuses its embedding.
  c.own_head = !source.Bool({"tie_word_embeddings", nullptr}, true);
  KVASIR_RETURN_IF_ERROR(source.status());
  gguf ? ReadGgufRope(source, &c) : ReadHuggingFaceRope(source, &c);
  architecture.configure(source, &c);
  KVASIR_RETURN_IF_ERROR(source.status());
  return c;
}

}  // namespace kvasir::model
