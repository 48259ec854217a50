#include "model/checkpoint.h"

#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include "model/gguf.h"
#include "model/safetensors.h"

namespace kvasir::model {
namespace {

std::string Describe(const RopeConfig& r) {
  return fmt::format("{}/{}/{}/{}/{}/{}/{}/{}/{}/{}/{}/{}/{}/{}/{}", r.theta, r.width,
                     static_cast<int>(r.scaling), r.factor, r.original_context, r.attention_factor,
                     r.low_frequency, r.high_frequency, r.beta_fast, r.beta_slow, r.mscale,
                     r.mscale_all, r.truncate, fmt::join(r.factors, ","),
                     fmt::join(r.long_factors, ","));
}

std::string Describe(const MoeConfig& m) {
  const graph::Routing& r = m.routing;
  return fmt::format("{}/{}/{}/{}/{}/{}/{}/{}/{}/{}", m.ffn, m.shared_ffn, m.dense_layers,
                     r.experts, r.used, r.groups, r.groups_used, static_cast<int>(r.score),
                     r.normalize, r.scale);
}

void UpdateScaled(XXH3_state_t* state, const ops::ScaledMatrix& m) {
  const std::string layout = fmt::format(
      "/{}/{}/{}/{}/{}/{}/{}/{}/{}", m.group_columns, m.group_rows, Info(m.scale.dtype).name,
      m.q.down_rows, m.q.awq_order, m.is_signed, m.zero_offset, m.first_row, m.row_step);
  XXH3_128bits_update(state, layout.data(), layout.size());
  XXH3_128bits_update(state, m.scale.bytes.data(), m.scale.bytes.size());
  XXH3_128bits_update(state, m.zero.bytes.data(), m.zero.bytes.size());
  XXH3_128bits_update(state, m.order.data(), m.order.size() * sizeof(m.order[0]));
}

// All that decides a result besides the tensors.
std::string Describe(const ModelConfig& c) {
  std::string windows;
  for (int32_t layer = 0; layer < c.layers; ++layer) windows += c.HasWindow(layer) ? '1' : '0';
  return fmt::format("{}/{}/{}/{}/{}/{}/{}/{}/{}/{}", c.architecture, c.layers, c.hidden, c.heads,
                     c.kv_heads, c.head_dim, c.ffn, c.vocab, c.context_length, c.rms_eps) +
         fmt::format("/{}/{}/{}", c.sliding_window, windows, c.interleaved_rope) +
         fmt::format("/{}/{}/{}", static_cast<int>(c.gate.kind), c.gate.alpha, c.gate.limit) +
         fmt::format("/{}/{}/{}/{}/{}", c.norm_offset, c.embedding_scale, c.query_scale,
                     c.attention_softcap, c.logit_softcap) +
         fmt::format("/{}/{}/{}", Describe(c.rope), Describe(c.window_rope), c.has_window_rope) +
         fmt::format("/{}/{}/{}/{}/{}/{}", Describe(c.moe), c.latent.rank, c.latent.q_rank,
                     c.latent.nope, c.latent.rope, c.latent.value);
}

}  // namespace

StatusOr<Checkpoint> LoadCheckpoint(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return LoadHuggingFace(path);
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file or folder"));
  }
  return LoadGguf(path);
}

std::string WeightsFingerprint(const Checkpoint& checkpoint) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  const ModelConfig& c = checkpoint.config;
  const std::string config = Describe(c);
  XXH3_128bits_update(state, config.data(), config.size());
  for (const auto& [name, view] : checkpoint.tensors) {
    const std::string header =
        fmt::format("{}:{}:{}x{}:{}:{}:{}", name, Info(view.dtype).name, view.rows, view.cols,
                    view.row_stride, view.col_stride, view.interleaved.width);
    XXH3_128bits_update(state, header.data(), header.size());
    XXH3_128bits_update(state, view.bytes.data(), view.bytes.size());
    if (view.scaled != nullptr) UpdateScaled(state, *view.scaled);
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace kvasir::model
