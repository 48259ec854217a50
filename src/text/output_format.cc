#include "text/output_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace kvasir::text {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Calls written in XML (<function=name>) share the tag of Hermes and nothing else.
ToolFormat DetectTools(std::string_view source) {
  if (Contains(source, "[TOOL_CALLS]")) {
    return Contains(source, "[ARGS]") ? ToolFormat::kMistralArgs : ToolFormat::kMistral;
  }
  if (Contains(source, "<tool_call>") && !Contains(source, "<function=")) {
    return ToolFormat::kHermes;
  }
  if (Contains(source, "<|python_tag|>") ||
      (Contains(source, "\"parameters\": ") && Contains(source, "{\"name\": "))) {
    return ToolFormat::kLlama3Json;
  }
  return ToolFormat::kNone;
}

StatusOr<ToolFormat> ToolsByName(std::string_view name, std::string_view source) {
  if (name == "auto") return DetectTools(source);
  if (name == "none") return ToolFormat::kNone;
  if (name == "hermes") return ToolFormat::kHermes;
  if (name == "llama3_json") return ToolFormat::kLlama3Json;
  if (name == "mistral") {
    return Contains(source, "[ARGS]") ? ToolFormat::kMistralArgs : ToolFormat::kMistral;
  }
  return absl::InvalidArgumentError(
      fmt::format("tool-call-parser: '{}' is not one of {}", name,
                  fmt::join(std::begin(kToolParserNames), std::end(kToolParserNames), ", ")));
}

StatusOr<ReasoningFormat> ReasoningByName(std::string_view name, std::string_view source) {
  if (name == "none") return ReasoningFormat::kNone;
  if (name == "auto") {
    return Contains(source, kThinkClose) ? ReasoningFormat::kThinkTags : ReasoningFormat::kNone;
  }
  if (name == "deepseek_r1" || name == "qwen3") return ReasoningFormat::kThinkTags;
  return absl::InvalidArgumentError(fmt::format(
      "reasoning-parser: '{}' is not one of {}", name,
      fmt::join(std::begin(kReasoningParserNames), std::end(kReasoningParserNames), ", ")));
}

}  // namespace

StatusOr<OutputFormat> MakeOutputFormat(std::string_view tool_parser,
                                        std::string_view reasoning_parser,
                                        std::string_view template_source) {
  OutputFormat format;
  KVASIR_ASSIGN_OR_RETURN(format.tools, ToolsByName(tool_parser, template_source));
  KVASIR_ASSIGN_OR_RETURN(format.reasoning, ReasoningByName(reasoning_parser, template_source));
  return format;
}

std::vector<std::string_view> Markers(const OutputFormat& format) {
  std::vector<std::string_view> markers;
  if (format.reasoning == ReasoningFormat::kThinkTags) markers = {kThinkOpen, kThinkClose};
  const auto add = [&markers](std::initializer_list<std::string_view> more) {
    markers.insert(markers.end(), more);
  };
  switch (format.tools) {
    case ToolFormat::kNone:
      break;
    case ToolFormat::kHermes:
      add({"<tool_call>", "</tool_call>"});
      break;
    case ToolFormat::kLlama3Json:
      add({"<|python_tag|>"});
      break;
    case ToolFormat::kMistral:
    case ToolFormat::kMistralArgs:
      add({"[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"});
      break;
  }
  return markers;
}

std::optional<TokenId> ControlToken(const Tokenizer& tokenizer, std::string_view marker) {
  const TokenId id = tokenizer.TokenToId(marker);
  if (id < 0 || !tokenizer.IsSpecial(id)) return std::nullopt;
  return id;
}

ReasoningState StateAtEnd(std::string_view prompt) {
  const size_t end = prompt.find_last_not_of(kSpace);
  if (end == std::string_view::npos) return ReasoningState::kNotBegun;
  prompt = prompt.substr(0, end + 1);
  if (prompt.ends_with(kThinkClose)) return ReasoningState::kClosed;
  return prompt.ends_with(kThinkOpen) ? ReasoningState::kOpen : ReasoningState::kNotBegun;
}

}  // namespace kvasir::text
