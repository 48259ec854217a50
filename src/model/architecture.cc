#include "model/architecture.h"

#include <algorithm>

#include <fmt/format.h>

#include "model/architectures/all.h"
#include "model/decoder.h"

namespace kvasir::model {
namespace {

constexpr const Architecture* kAll[] = {
    &kLlama, &kMistral, &kQwen2,    &kQwen3,  &kGemma2,    &kGemma3,
    &kPhi3,  &kMixtral, &kQwen3Moe, &kGptOss, &kDeepseek3,
};

template <typename Matches>
const Architecture* FindWhere(const Matches& matches) {
  const auto it = std::find_if(std::begin(kAll), std::end(kAll),
                               [&](const Architecture* a) { return matches(*a); });
  return it == std::end(kAll) ? nullptr : *it;
}

// What the kernels rest on.
Status CheckConfig(const ModelConfig& c) {
  const auto fail = [](const std::string& what) {
    return absl::InvalidArgumentError("config: " + what);
  };
  if (c.heads % c.kv_heads != 0) {
    return fail(fmt::format("{} heads are no multiple of {} KV heads", c.heads, c.kv_heads));
  }
  const std::pair<const char*, int32_t> widths[] = {{"head size", c.head_dim},
                                                    {"hidden size", c.hidden},
                                                    {"feed-forward size", c.ffn},
                                                    {"expert feed-forward size", c.moe.ffn},
                                                    {"shared feed-forward size", c.moe.shared_ffn},
                                                    {"rank of the latent", c.latent.rank},
                                                    {"rank of the query", c.latent.q_rank},
                                                    {"unrotated head size", c.latent.nope},
                                                    {"rotated head size", c.latent.rope},
                                                    {"value head size", c.latent.value}};
  for (const auto& [name, width] : widths) {
    if (width % 16 != 0) return fail(fmt::format("{} {} is no multiple of 16", name, width));
  }
  for (const RopeConfig* rope : {&c.rope, c.has_window_rope ? &c.window_rope : &c.rope}) {
    if (rope->width > c.head_dim || rope->width % 2 != 0 || rope->width < 4) {
      return fail(fmt::format("{} rotated columns of a head of {}", rope->width, c.head_dim));
    }
  }
  const graph::Routing& routing = c.moe.routing;
  if (routing.experts > 0 &&
      (routing.used > routing.experts || routing.groups < 1 ||
       routing.experts % routing.groups != 0 || routing.groups_used > routing.groups ||
       routing.used > routing.experts / routing.groups * routing.groups_used)) {
    return fail(fmt::format("{} of {} experts, {} of {} groups", routing.used, routing.experts,
                            routing.groups_used, routing.groups));
  }
  for (int32_t id : c.eos_ids) {
    if (id < 0 || id >= c.vocab)
      return fail(fmt::format("end token {} is outside the vocabulary", id));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Span<const Architecture* const> Architectures() { return kAll; }

const Architecture* FindGguf(std::string_view name) {
  return FindWhere([&](const Architecture& a) { return a.in_gguf && name == a.name; });
}

const Architecture* FindHuggingFace(std::string_view class_name) {
  return FindWhere([&](const Architecture& a) { return class_name == a.hugging_face; });
}

const Architecture* FindArchitecture(std::string_view name) {
  return FindWhere([&](const Architecture& a) { return name == a.name; });
}

std::string SupportedClasses() {
  std::string out;
  for (const Architecture* a : kAll)
    out += fmt::format("{}{}", out.empty() ? "" : ", ", a->hugging_face);
  return out;
}

std::string SupportedGguf() {
  std::string out;
  for (const Architecture* a : kAll) {
    if (a->in_gguf) out += fmt::format("{}{}", out.empty() ? "" : ", ", a->name);
  }
  return out;
}

StatusOr<graph::Graph> BuildGraph(const Checkpoint& checkpoint) {
  KVASIR_RETURN_IF_ERROR(CheckConfig(checkpoint.config));
  return BuildDecoder(checkpoint);
}

}  // namespace kvasir::model
