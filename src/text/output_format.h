// How a model writes what is not content: its tool calls and its reasoning. Detected from the chat
// template, or named by the operator as in vLLM.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace kvasir::text {

enum class ToolFormat {
  kNone,
  kHermes,       // <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>
  kLlama3Json,   // {"name": ..., "parameters": {...}}, several with ; between them
  kMistral,      // [TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]
  kMistralArgs,  // [TOOL_CALLS]name[ARGS]{...}, repeated
};

enum class ReasoningFormat {
  kNone,
  kThinkTags,  // <think>...</think>, at the beginning of the answer
};

struct OutputFormat {
  ToolFormat tools = ToolFormat::kNone;
  ReasoningFormat reasoning = ReasoningFormat::kNone;

  friend bool operator==(const OutputFormat&, const OutputFormat&) = default;
};

inline constexpr std::string_view kThinkOpen = "<think>";
inline constexpr std::string_view kThinkClose = "</think>";

// What the parsers go by under these names; "auto" looks at the template. InvalidArgument for other
// names.
inline constexpr std::string_view kToolParserNames[] = {"auto", "none", "hermes", "llama3_json",
                                                        "mistral"};
inline constexpr std::string_view kReasoningParserNames[] = {"auto", "none", "deepseek_r1",
                                                             "qwen3"};
StatusOr<OutputFormat> MakeOutputFormat(std::string_view tool_parser,
                                        std::string_view reasoning_parser,
                                        std::string_view template_source);

// The texts that a format's syntax is made of and that vocabularies often have a control token for.
std::vector<std::string_view> Markers(const OutputFormat& format);

// The id of a marker that is a control token, which text can't spell and grammars name by its id.
std::optional<TokenId> ControlToken(const Tokenizer& tokenizer, std::string_view marker);

// Whether text that ends like `prompt` has opened its reasoning and not closed it, or closed it at
// its very end, so that the answer begins with the one or the other.
enum class ReasoningState { kNotBegun, kOpen, kClosed };
ReasoningState StateAtEnd(std::string_view prompt);

}  // namespace kvasir::text
