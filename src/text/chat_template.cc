#include "text/chat_template.h"

#include <fmt/format.h>

#include <ctime>
#include <utility>

#include "text/bridge.h"
#include "text/control_text.h"
#include "text/user_text.h"

namespace kvasir::text {
namespace {

using nlohmann::ordered_json;

// Enough for thousands of messages of a hundred instructions each or 300 MB of text; a template
// that loops for no good ends within a second.
constexpr uint64_t kFuel = 5'000'000;

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kContinueField = "continue_final_message";

Status Bad(std::string_view field, std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("{}: {}", field, what));
}

kvb_local_time ToLocalTime(std::chrono::system_clock::time_point now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm local{};
  localtime_r(&seconds, &local);
  return {local.tm_year + 1900, local.tm_mon + 1, local.tm_mday, local.tm_hour,
          local.tm_min,         local.tm_sec,     local.tm_wday, local.tm_yday + 1};
}

// What a template can't take and its input therefore must not hold.
struct Dialect {
  bool knows_parts = true;         // content as an array of parts
  bool knows_null_content = true;  // a tool call without content
};

// An ordered object looks for each new key among those it has, so a hostile one costs the square of
// its keys. No tool takes so many arguments.
std::optional<ordered_json> ParseObject(const std::string& text) {
  constexpr int kMaxKeys = 4096;
  int keys = 0;
  const auto keep = [&keys](int, ordered_json::parse_event_t event, ordered_json&) {
    return event != ordered_json::parse_event_t::key || ++keys <= kMaxKeys;
  };
  ordered_json parsed = ordered_json::parse(text, keep, /*allow_exceptions=*/false);
  if (!parsed.is_object() || keys > kMaxKeys) return {};
  return parsed;
}

// {"arguments": "{\"a\": 1}"} -> {"arguments": {"a": 1}}
void ParseArguments(ordered_json& tool_call) {
  if (!tool_call.is_object() || !tool_call.contains("function")) return;
  ordered_json& function = tool_call["function"];
  if (!function.is_object() || !function.contains("arguments")) return;
  ordered_json& arguments = function["arguments"];
  if (!arguments.is_string()) return;
  if (auto parsed = ParseObject(arguments.get_ref<const std::string&>())) {
    arguments = std::move(*parsed);
  }
}

// Only when every part is text.
std::optional<std::string> JoinParts(const ordered_json& parts) {
  std::string joined;
  for (const ordered_json& part : parts) {
    if (!part.is_object() || !part.contains("text") || !part["text"].is_string()) return {};
    if (!joined.empty()) joined += '\n';
    joined += part["text"].get_ref<const std::string&>();
  }
  return joined;
}

void AdaptMessage(const Dialect& dialect, ordered_json& message) {
  if (message.contains("tool_calls") && message["tool_calls"].is_array()) {
    for (ordered_json& call : message["tool_calls"]) ParseArguments(call);
  }
  if (!message.contains("content") || message["content"].is_null()) {
    if (!dialect.knows_null_content) message["content"] = "";
    return;
  }
  ordered_json& content = message["content"];
  if (content.is_array() && !dialect.knows_parts) {
    if (std::optional<std::string> joined = JoinParts(content)) content = std::move(*joined);
  }
}

class JinjaTemplate final : public ChatTemplate {
 public:
  JinjaTemplate(BridgeTemplate handle, std::string source, std::string bos_token,
                std::string eos_token, ControlTexts controls)
      : handle_(std::move(handle)),
        source_(std::move(source)),
        bos_token_(std::move(bos_token)),
        eos_token_(std::move(eos_token)),
        controls_(std::move(controls)) {
    dialect_ = ProbeDialect();
  }

  StatusOr<RenderedChat> Render(const ChatInput& input) const override;

 private:
  StatusOr<ordered_json> Variables(const ChatInput& input) const;
  StatusOr<std::string> RenderText(const ordered_json& variables, kvb_local_time now) const;
  Dialect ProbeDialect() const;

  BridgeTemplate handle_;
  std::string source_;
  std::string bos_token_;
  std::string eos_token_;
  ControlTexts controls_;
  Dialect dialect_;
};

Status CheckShape(const ChatInput& input) {
  if (!input.messages.is_array()) return Bad("messages", "must be an array");
  for (const ordered_json& message : input.messages) {
    if (!message.is_object()) return Bad("messages", "must be an array of objects");
  }
  if (!input.tools.is_null() && !input.tools.is_array()) return Bad("tools", "must be an array");
  if (!input.template_kwargs.is_null() && !input.template_kwargs.is_object()) {
    return Bad("chat_template_kwargs", "must be an object");
  }
  return absl::OkStatus();
}

// The variables that users' strings are in.
StatusOr<ordered_json> JinjaTemplate::Variables(const ChatInput& input) const {
  ordered_json variables = {
      {"messages", input.messages}, {"tools", input.tools}, {"documents", nullptr}};
  for (ordered_json& message : variables["messages"]) AdaptMessage(dialect_, message);
  if (input.template_kwargs.is_object()) {
    for (const auto& [name, value] : input.template_kwargs.items()) {
      if (name == "messages" || name == "tools" || name == "add_generation_prompt" ||
          name == "bos_token" || name == "eos_token" || name == "raise_exception" ||
          name == "strftime_now") {
        return Bad("chat_template_kwargs", fmt::format("{} can't be set here", name));
      }
      variables[name] = value;
    }
  }
  return variables;
}

StatusOr<std::string> JinjaTemplate::RenderText(const ordered_json& variables,
                                                kvb_local_time now) const {
  const std::string context = variables.dump();
  BridgeString text;
  BridgeString error;
  if (!kvb_template_render(handle_.get(), ToBridge(context), now, text.out(), error.out())) {
    return absl::InvalidArgumentError(error.text());
  }
  return text.text();
}

// Where the last message is to be continued, `end` and a space stand behind its content while the
// template works on it: the space tells whether the template trims.
Status MarkEnd(std::string_view end, ordered_json& messages) {
  const bool has_text = !messages.empty() && messages.back().contains("content") &&
                        messages.back()["content"].is_string();
  std::string text = has_text ? messages.back()["content"].get<std::string>() : "";
  if (text.find_first_not_of(kSpace) == std::string::npos) {
    return Bad(kContinueField, "the last message has no text to continue");
  }
  messages.back()["content"] = fmt::format("{}{} ", text, end);
  return absl::OkStatus();
}

Status CutAtEnd(std::string_view end, std::string* rendered) {
  const size_t at = rendered->rfind(end);
  if (at == std::string::npos) {
    return Bad(kContinueField, "the chat template does not show the content of the last message");
  }
  const bool trims = !std::string_view(*rendered).substr(at + end.size()).starts_with(' ');
  rendered->resize(at);
  if (trims) rendered->resize(rendered->find_last_not_of(kSpace) + 1);
  return absl::OkStatus();
}

StatusOr<RenderedChat> JinjaTemplate::Render(const ChatInput& input) const {
  KVASIR_RETURN_IF_ERROR(CheckShape(input));
  UserTextMarker marker(controls_, source_);
  // Checked before anything copies it, which takes a stack as deep as the nesting.
  KVASIR_RETURN_IF_ERROR(marker.NoteUsed("messages", input.messages));
  KVASIR_RETURN_IF_ERROR(marker.NoteUsed("tools", input.tools));
  KVASIR_RETURN_IF_ERROR(marker.NoteUsed("chat_template_kwargs", input.template_kwargs));
  KVASIR_ASSIGN_OR_RETURN(ordered_json variables, Variables(input));
  // Again: the arguments of tool calls were unpacked.
  for (const auto& [name, value] : variables.items()) {
    KVASIR_RETURN_IF_ERROR(marker.NoteUsed(name, value));
  }
  for (ordered_json& value : variables) KVASIR_RETURN_IF_ERROR(marker.Mark(value));
  std::string end;
  if (input.continue_final_message) {
    KVASIR_ASSIGN_OR_RETURN(end, marker.NewMark());
    KVASIR_RETURN_IF_ERROR(MarkEnd(end, variables["messages"]));
  }
  variables["add_generation_prompt"] = input.add_generation_prompt;
  variables["bos_token"] = bos_token_;
  variables["eos_token"] = eos_token_;
  const auto now = input.now.value_or(std::chrono::system_clock::now());
  KVASIR_ASSIGN_OR_RETURN(std::string text, RenderText(variables, ToLocalTime(now)));
  if (input.continue_final_message) KVASIR_RETURN_IF_ERROR(CutAtEnd(end, &text));
  return RenderedChat{marker.Restore(text)};
}

// A template says what it can take only by how it renders it.
Dialect JinjaTemplate::ProbeDialect() const {
  constexpr std::string_view kProbe = "kvasirprobe";
  const auto render = [this](const ordered_json& messages) {
    return Render({.messages = messages, .now = std::chrono::system_clock::time_point()});
  };
  Dialect dialect;
  const StatusOr<RenderedChat> parts =
      render({{{"role", "user"}, {"content", {{{"type", "text"}, {"text", kProbe}}}}}});
  const std::string text = parts.ok() ? parts->Text() : "";
  // A template that takes the list for a string writes it down as one.
  dialect.knows_parts = text.find(kProbe) != std::string::npos &&
                        text.find("'text'") == std::string::npos &&
                        text.find("\"text\"") == std::string::npos;

  const ordered_json call = {
      {"type", "function"},
      {"function", {{"name", kProbe}, {"arguments", ordered_json::object()}}}};
  const StatusOr<RenderedChat> null_content = render(
      {{{"role", "user"}, {"content", "a"}},
       {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", ordered_json::array({call})}}});
  dialect.knows_null_content =
      null_content.ok() && null_content->Text().find("None") == std::string::npos;
  return dialect;
}

}  // namespace

std::string RenderedChat::Text() const {
  std::string text;
  for (const Piece& piece : pieces) text += piece.text;
  return text;
}

StatusOr<std::vector<TokenId>> RenderedChat::Encode(const Tokenizer& tokenizer) const {
  return tokenizer.EncodePieces(pieces);
}

StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Create(std::string source,
                                                             std::string bos_token,
                                                             std::string eos_token,
                                                             const Tokenizer& tokenizer) {
  BridgeString error;
  BridgeTemplate handle(kvb_template_new(ToBridge(source), kFuel, error.out()));
  if (handle == nullptr) {
    return absl::InvalidArgumentError(fmt::format("chat template: {}", error.view()));
  }
  return std::make_unique<JinjaTemplate>(std::move(handle), std::move(source), std::move(bos_token),
                                         std::move(eos_token),
                                         ControlTexts(tokenizer.SpecialTexts()));
}

}  // namespace kvasir::text
