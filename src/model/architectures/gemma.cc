#include "model/architectures/gemma.h"

#include <cmath>

namespace kvasir::model {

void ConfigureGemma(ConfigSource& source, int32_t layers_of_27b, ModelConfig* c) {
  c->gate.kind = graph::GateKind::kGelu;
  // GGUF files hold the sums.
  c->norm_offset = source.is_gguf() ? 0.0f : 1.0f;
  c->embedding_scale = std::sqrt(static_cast<float>(c->hidden));
  const bool widest = source.is_gguf() && c->layers == layers_of_27b;
  const float usual = static_cast<float>(widest ? c->hidden / c->heads : c->head_dim);
  c->query_scale = 1.0f / std::sqrt(source.Float({"query_pre_attn_scalar", nullptr}, usual));
}

}  // namespace kvasir::model
