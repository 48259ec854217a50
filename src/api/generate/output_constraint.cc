#include "api/generate/output_constraint.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "api/generate/lark.h"

namespace kvasir::api {
namespace {

using text::ReasoningFormat;
using text::ReasoningState;
using text::ToolFormat;

// What a call is made of, around its arguments.
struct CallSyntax {
  std::string_view marker;  // before a call, or before a group of them; may be empty
  std::string_view before_name;
  std::string_view after_name;
  std::string_view after_arguments;
  std::string_view end_marker;  // of a call; may be empty
  std::string_view separator;   // between calls, the marker of the next one not counted
  std::string_view group_begin;
  std::string_view group_end;
  bool marks_each_call = true;  // or the whole group
  bool quotes_name = true;
};

constexpr CallSyntax kHermes{.marker = "<tool_call>",
                             .before_name = "\n{\"name\": ",
                             .after_name = ", \"arguments\": ",
                             .after_arguments = "}\n",
                             .end_marker = "</tool_call>",
                             .separator = "\n"};
constexpr CallSyntax kLlama3Json{.before_name = "{\"name\": ",
                                 .after_name = ", \"parameters\": ",
                                 .after_arguments = "}",
                                 .separator = "; "};
constexpr CallSyntax kMistral{.marker = "[TOOL_CALLS]",
                              .before_name = "{\"name\": ",
                              .after_name = ", \"arguments\": ",
                              .after_arguments = "}",
                              .separator = ", ",
                              .group_begin = " [",
                              .group_end = "]",
                              .marks_each_call = false};

// A name that needs no quotes to be told from what stands around it.
bool IsPlain(const std::string& name) {
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_-.:/").find(c) != std::string_view::npos;
  });
}

// Builds the rules of one grammar.
class GrammarWriter {
 public:
  GrammarWriter(const OutputRules& rules, const ControlTokenOf& control_token_of)
      : rules_(rules), control_token_of_(control_token_of) {}

  Constraint Write();

 private:
  bool must_call() const {
    return rules_.tools.choice == ToolChoice::kRequired ||
           rules_.tools.choice == ToolChoice::kNamed;
  }

  std::string Sequence(std::vector<std::string> parts) const;
  std::string Marker(std::string_view text) const;
  bool IsControl(std::string_view text) const { return control_token_of_(text).has_value(); }

  std::string Body();
  std::string Answer();
  std::string TextWithCalls();
  std::string BareTextOrCalls();
  std::string Reasoning();

  void AddTools();
  std::string AddCall(const Tool& tool, size_t index);
  std::string Call(bool with_marker) const;
  std::string Calls(bool with_marker) const;

  void AddRule(std::string_view name, std::string_view body) {
    lines_ += fmt::format("{}: {}\n", name, body);
  }
  void AddText() { AddRule("TEXT", "/(.|\\n)*/"); }

  const OutputRules& rules_;
  const ControlTokenOf& control_token_of_;
  CallSyntax syntax_;
  std::string args_marker_;  // what stands between an unquoted name and its arguments
  std::string lines_;
};

std::string GrammarWriter::Marker(std::string_view text) const {
  if (text.empty()) return "";
  if (const std::optional<TokenId> id = control_token_of_(text)) return fmt::format("<[{}]>", *id);
  return LarkString(text);
}

// The parts that are not empty, one after the other.
std::string GrammarWriter::Sequence(std::vector<std::string> parts) const {
  std::erase(parts, "");
  return fmt::format("{}", fmt::join(parts, " "));
}

std::string Literal(std::string_view text) { return text.empty() ? "" : LarkString(text); }

std::string GrammarWriter::AddCall(const Tool& tool, size_t index) {
  const bool any_arguments = !must_call() && !tool.strict;
  const std::string schema = LarkSchema(any_arguments ? Json{{"type", "object"}} : tool.parameters);
  const std::string name = fmt::format("call_{}", index);
  if (!syntax_.quotes_name) {
    AddRule(name, Sequence({LarkString(tool.name), args_marker_, schema}));
    return name;
  }
  const std::string head =
      fmt::format("{}{}{}", syntax_.before_name, Dump(tool.name), syntax_.after_name);
  AddRule(name, Sequence({LarkString(head), schema, Literal(syntax_.after_arguments)}));
  return name;
}

void GrammarWriter::AddTools() {
  std::vector<std::string> names;
  const std::vector<Tool>& tools = rules_.tools.tools;
  for (size_t i = 0; i < tools.size(); ++i) {
    const bool excluded =
        rules_.tools.choice == ToolChoice::kNamed && tools[i].name != rules_.tools.named;
    if (!excluded) names.push_back(AddCall(tools[i], i));
  }
  AddRule("call", fmt::format("{}", fmt::join(names, " | ")));
}

std::string GrammarWriter::Call(bool with_marker) const {
  const bool marked = with_marker && syntax_.marks_each_call;
  return Sequence({marked ? Marker(syntax_.marker) : "", "call", Marker(syntax_.end_marker)});
}

// One call or, where that is allowed, several. Without the marker: of the first call.
std::string GrammarWriter::Calls(bool with_marker) const {
  const bool group_marked = with_marker && !syntax_.marks_each_call;
  std::string more;
  if (rules_.tools.parallel) {
    more = fmt::format("({})*", Sequence({Literal(syntax_.separator), Call(true)}));
  }
  return Sequence({group_marked ? Marker(syntax_.marker) : "", Literal(syntax_.group_begin),
                   Call(with_marker), more, Literal(syntax_.group_end)});
}

std::string GrammarWriter::Answer() {
  switch (rules_.content->kind) {
    case Constraint::Kind::kJsonSchema:
      return LarkSchema(*ParseJsonObject(rules_.content->text));
    case Constraint::Kind::kRegex:
      return LarkRegex(rules_.content->text);
    case Constraint::Kind::kLark:
      return fmt::format("%lark {{\n{}\n}}", rules_.content->text);
  }
  return "";
}

// The marker decides: text up to it is free, a call must follow it. Where one call is all, the
// answer ends with it: free text after it could hold another.
std::string GrammarWriter::TextWithCalls() {
  AddText();
  const std::string calls = Calls(false);
  if (IsControl(syntax_.marker)) {
    const std::string marked = fmt::format("{} {}", Marker(syntax_.marker), calls);
    return rules_.tools.parallel ? fmt::format("TEXT ({} TEXT)*", marked)
                                 : fmt::format("TEXT ({})?", marked);
  }
  // Lazy: the first marker ends it, and no other reading of the text goes past that.
  AddRule("before_call[lazy]", Sequence({"TEXT", LarkString(syntax_.marker)}));
  return rules_.tools.parallel ? fmt::format("(before_call {})* TEXT", calls)
                               : fmt::format("TEXT | before_call {}", calls);
}

// Without a marker, the first character decides.
std::string GrammarWriter::BareTextOrCalls() {
  AddRule("BARE", "/[ \\t\\r\\n]*[^{ \\t\\r\\n](.|\\n)*/");
  return fmt::format("BARE | {} | \"\"", Calls(true));
}

std::string GrammarWriter::Body() {
  if (rules_.tools.choice == ToolChoice::kNone) return Answer();
  AddTools();
  if (must_call()) return Calls(true);
  // Between two objects the first brace decides nothing, so there the content wins.
  if (rules_.content && syntax_.marker.empty()) return Answer();
  if (rules_.content) return fmt::format("{} | {}", Answer(), Calls(true));
  return syntax_.marker.empty() ? BareTextOrCalls() : TextWithCalls();
}

// The rule for what comes before the body, or nothing.
std::string GrammarWriter::Reasoning() {
  if (rules_.format.reasoning == ReasoningFormat::kNone ||
      rules_.reasoning == ReasoningState::kClosed) {
    return "";
  }
  const bool open = rules_.reasoning == ReasoningState::kOpen;
  if (lines_.find("TEXT: ") == std::string::npos) AddText();
  AddRule("gap", "\"\\n\\n\" | \"\\n\" | \"\"");
  const std::string end = Marker(text::kThinkClose);
  const std::string begin = open ? "" : Marker(text::kThinkOpen);
  if (IsControl(text::kThinkClose)) {
    AddRule("thought", Sequence({begin, "TEXT", end}));
  } else {
    AddRule("thought[lazy]", Sequence({begin, "TEXT", end}));
  }
  return open ? "thought gap" : "(thought gap)?";
}

Constraint GrammarWriter::Write() {
  const bool named_calls = rules_.format.tools == ToolFormat::kMistralArgs &&
                           std::all_of(rules_.tools.tools.begin(), rules_.tools.tools.end(),
                                       [](const Tool& tool) { return IsPlain(tool.name); });
  switch (rules_.format.tools) {
    case ToolFormat::kNone:
      break;
    case ToolFormat::kHermes:
      syntax_ = kHermes;
      break;
    case ToolFormat::kLlama3Json:
      syntax_ = kLlama3Json;
      break;
    case ToolFormat::kMistral:
    case ToolFormat::kMistralArgs:
      syntax_ = kMistral;
      break;
  }
  if (named_calls) {
    syntax_ = {.marker = kMistral.marker, .quotes_name = false};
    args_marker_ = Marker("[ARGS]");
  }
  const std::string body = Body();
  const std::string reasoning = Reasoning();
  AddRule("body", body);
  return {Constraint::Kind::kLark,
          fmt::format("start: {}\n{}", Sequence({reasoning, "body"}), lines_)};
}

bool AnyStrict(const std::vector<Tool>& tools) {
  return std::any_of(tools.begin(), tools.end(), [](const Tool& tool) { return tool.strict; });
}

}  // namespace

std::optional<Constraint> OutputConstraint(const OutputRules& rules,
                                           const ControlTokenOf& control_token_of) {
  const bool calls_are_free = !AnyStrict(rules.tools.tools) && rules.tools.parallel;
  const bool tools_are_free = rules.tools.choice == ToolChoice::kNone ||
                              (rules.tools.choice == ToolChoice::kAuto && calls_are_free);
  if (tools_are_free && !rules.content) return std::nullopt;
  const bool reasons = rules.format.reasoning != ReasoningFormat::kNone &&
                       rules.reasoning != ReasoningState::kClosed;
  if (rules.tools.choice == ToolChoice::kNone && !reasons) return rules.content;
  return GrammarWriter(rules, control_token_of).Write();
}

}  // namespace kvasir::api
