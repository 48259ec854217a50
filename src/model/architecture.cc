#include "model/architecture.h"

#include <fmt/format.h>

namespace kvasir::model {
namespace {

// What every architecture and the kernels rest on.
Status CheckConfig(const ModelConfig& c) {
  const auto fail = [](const std::string& what) {
    return absl::InvalidArgumentError("config: " + what);
  };
  if (c.heads % c.kv_heads != 0) {
    return fail(fmt::format("{} heads are no multiple of {} KV heads", c.heads, c.kv_heads));
  }
  if (c.head_dim % 16 != 0)
    return fail(fmt::format("head size {} is no multiple of 16", c.head_dim));
  for (const auto& [name, width] :
       {std::pair{"hidden size", c.hidden}, std::pair{"feed-forward size", c.ffn},
        std::pair{"attention width", c.heads * c.head_dim}}) {
    if (width % 32 != 0) return fail(fmt::format("{} {} is no multiple of 32", name, width));
  }
  for (int32_t id : c.eos_ids) {
    if (id < 0 || id >= c.vocab)
      return fail(fmt::format("end token {} is outside the vocabulary", id));
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<graph::Graph> BuildGraph(const Checkpoint& checkpoint) {
  KVASIR_RETURN_IF_ERROR(CheckConfig(checkpoint.config));
  const std::string& name = checkpoint.config.architecture;
  if (name == "llama" || name == "qwen2") return BuildLlama(checkpoint);
  return absl::UnimplementedError(absl::StrCat("architecture '", name, "' is not supported"));
}

}  // namespace kvasir::model
