#include "model/checkpoint.h"

#include <filesystem>

#include <fmt/format.h>
#include <xxhash.h>

#include "model/gguf.h"
#include "model/safetensors.h"

namespace kvasir::model {

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
  const std::string config =
      fmt::format("{}/{}/{}/{}/{}/{}/{}/{}/{}/{}/{}/{}", c.architecture, c.layers, c.hidden,
                  c.heads, c.kv_heads, c.head_dim, c.ffn, c.vocab, c.rms_eps, c.rope_theta,
                  c.interleaved_rope, c.sliding_window);
  XXH3_128bits_update(state, config.data(), config.size());
  XXH3_128bits_update(state, c.rope_factors.data(), c.rope_factors.size() * sizeof(float));
  for (const auto& [name, view] : checkpoint.tensors) {
    const std::string header =
        fmt::format("{}:{}:{}x{}", name, Info(view.dtype).name, view.rows, view.cols);
    XXH3_128bits_update(state, header.data(), header.size());
    XXH3_128bits_update(state, view.bytes.data(), view.bytes.size());
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace kvasir::model
