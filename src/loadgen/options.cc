#include "loadgen/options.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace kvasir::loadgen {
namespace {

constexpr std::array<std::pair<PromptStyle, std::string_view>, 3> kStyles = {
    {{PromptStyle::kTokenIds, "ids"}, {PromptStyle::kText, "text"}, {PromptStyle::kChat, "chat"}}};

Status AtLeast(const char* name, double value, double least) {
  if (value >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{} must be at least {}", name, least));
}

}  // namespace

StatusOr<PromptStyle> ParsePromptStyle(std::string_view name) {
  for (const auto& [style, style_name] : kStyles) {
    if (style_name == name) return style;
  }
  return absl::InvalidArgumentError(fmt::format("\"{}\" is none of ids, text and chat", name));
}

std::string_view PromptStyleName(PromptStyle style) {
  for (const auto& [known, name] : kStyles) {
    if (known == style) return name;
  }
  return "";
}

Status Validate(const Options& options) {
  KVASIR_RETURN_IF_ERROR(AtLeast("conversations", options.conversations, 1));
  KVASIR_RETURN_IF_ERROR(AtLeast("turns", options.turns, 1));
  KVASIR_RETURN_IF_ERROR(AtLeast("input_length", options.input_length, 1));
  KVASIR_RETURN_IF_ERROR(AtLeast("output_length", options.output_length, 1));
  KVASIR_RETURN_IF_ERROR(AtLeast("shared_prefix_length", options.shared_prefix_length, 0));
  KVASIR_RETURN_IF_ERROR(AtLeast("shared_prefix_groups", options.shared_prefix_groups, 1));
  KVASIR_RETURN_IF_ERROR(AtLeast("warmup_conversations", options.warmup_conversations, 0));
  KVASIR_RETURN_IF_ERROR(AtLeast("rate", options.rate, 0));
  KVASIR_RETURN_IF_ERROR(AtLeast("concurrency", options.concurrency, options.rate > 0 ? 0 : 1));
  KVASIR_RETURN_IF_ERROR(AtLeast("first_token_id", options.first_token_id, 0));
  KVASIR_RETURN_IF_ERROR(AtLeast("last_token_id", options.last_token_id, options.first_token_id));
  if (!(options.length_spread >= 0 && options.length_spread <= 1)) {
    return absl::InvalidArgumentError("length_spread must be within 0 and 1");
  }
  if (!options.extra_body.is_null() && !options.extra_body.is_object()) {
    return absl::InvalidArgumentError("extra_body must be a JSON object");
  }
  return absl::OkStatus();
}

}  // namespace kvasir::loadgen
