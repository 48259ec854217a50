#include "text/output_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace kvasir::text {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr OutputFormat kHermes{.tools = ToolFormat::kHermes};
constexpr OutputFormat kLlama{.tools = ToolFormat::kLlama3Json};
constexpr OutputFormat kMistral{.tools = ToolFormat::kMistral};
constexpr OutputFormat kThink{.reasoning = ReasoningFormat::kThinkTags};
constexpr OutputFormat kQwen3{ToolFormat::kHermes, ReasoningFormat::kThinkTags};

struct Call {
  std::string name;
  std::string arguments;
  friend bool operator==(const Call&, const Call&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Call& call) {
    return out << call.name << " " << call.arguments;
  }
};

struct Whole {
  std::string reasoning;
  std::string content;
  std::vector<Call> calls;
  friend bool operator==(const Whole&, const Whole&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Whole& whole) {
    out << "[" << whole.reasoning << "] [" << whole.content << "]";
    for (const Call& call : whole.calls) out << " [" << call << "]";
    return out;
  }
};

void Append(const ParsedOutput& piece, Whole* whole) {
  whole->reasoning += piece.reasoning;
  whole->content += piece.content;
  for (const ToolCallDelta& delta : piece.calls) {
    const size_t index = static_cast<size_t>(delta.index);
    ASSERT_EQ(delta.name.empty(), index < whole->calls.size()) << "named exactly once";
    if (index == whole->calls.size()) whole->calls.push_back({.name = delta.name});
    ASSERT_EQ(index + 1, whole->calls.size()) << "calls do not overlap";
    ASSERT_FALSE(delta.arguments.empty());
    whole->calls.back().arguments += delta.arguments;
  }
}

// Feeds `text` in pieces of `next_size()` bytes.
template <typename NextSize>
Whole ParseInPieces(const OutputFormat& format, std::string_view text, ReasoningState state,
                    NextSize next_size) {
  OutputParser parser(format, state);
  Whole whole;
  while (!text.empty()) {
    const size_t size = std::min<size_t>(next_size(), text.size());
    Append(parser.Add(text.substr(0, size)), &whole);
    text.remove_prefix(size);
  }
  Append(parser.Finish(), &whole);
  EXPECT_EQ(parser.calls(), static_cast<int32_t>(whole.calls.size()));
  return whole;
}

Whole Parse(const OutputFormat& format, std::string_view text,
            ReasoningState state = ReasoningState::kNotBegun) {
  const Whole whole = ParseInPieces(format, text, state, [&] { return text.size(); });
  EXPECT_EQ(ParseInPieces(format, text, state, [] { return 1; }), whole) << text;
  return whole;
}

// ---- Hermes ----

TEST(HermesCalls, AreFoundBetweenContent) {
  EXPECT_EQ(Parse(kHermes,
                  "Let me look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": "
                  "{\"city\": \"Paris\"}}\n</tool_call>"),
            (Whole{"", "Let me look.", {{"get_weather", R"({"city": "Paris"})"}}}));
  EXPECT_EQ(Parse(kHermes,
                  "<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call>\n"
                  "<tool_call>\n{\"name\": \"b\", \"arguments\": {\"x\":1}}\n"
                  "</tool_call>\n"),
            (Whole{"", "", {{"a", "{}"}, {"b", R"({"x":1})"}}}));
  EXPECT_EQ(Parse(kHermes, "<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>\n\nDone. "),
            (Whole{"", "\n\nDone. ", {{"a", "{}"}}}));
}

TEST(HermesCalls, TakeMembersInAnyOrder) {
  EXPECT_EQ(Parse(kHermes, R"(<tool_call>{"id": 7, "arguments": {"a": [1, "}"]}, "name": "f", )"
                           R"("type": "function"}</tool_call>)"),
            (Whole{"", "", {{"f", R"({"a": [1, "}"]})"}}}));
  EXPECT_EQ(Parse(kHermes, R"(<tool_call>{"name": "f"}</tool_call>)"),
            (Whole{"", "", {{"f", "{}"}}}));
  EXPECT_EQ(Parse(kHermes, R"(<tool_call>{"name": "\u0066\"", "parameters": {}}</tool_call>)"),
            (Whole{"", "", {{"f\"", "{}"}}}));
}

TEST(HermesCalls, NeedNoClosingTag) {
  EXPECT_EQ(Parse(kHermes, R"(<tool_call>{"name": "f", "arguments": {}})"),
            (Whole{"", "", {{"f", "{}"}}}));
  EXPECT_EQ(Parse(kHermes, "<tool_call>{\"name\": \"f\", \"arguments\": {}}\n</tool_c"),
            (Whole{"", "", {{"f", "{}"}}}));
  EXPECT_EQ(Parse(kHermes, "<tool_call>{\"name\": \"f\"}\n<tool_call>{\"name\": \"g\"}"),
            (Whole{"", "", {{"f", "{}"}, {"g", "{}"}}}));
}

TEST(HermesCalls, ThatAreMalformedAreContent) {
  for (const char* text :
       {"<tool_call>", "<tool_call>\n", "<tool_call>hello</tool_call>", "<tool_call>{}</tool_call>",
        "<tool_call>{\"name\": 3}", "<tool_call>{\"name\": \"\"}", "<tool_call>[{\"name\"",
        "<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}", "<tool_call>{\"arguments\": {}}",
        "<tool_call>{\"arguments\": {}, \"arguments\": {}}", "<tool_call>{\"name\": \"f\",",
        "<tool_call>{\"name\": \"f\\ud800\", \"arguments\": {}}", "<<tool_call", "  <tool",
        "< >"}) {
    EXPECT_EQ(Parse(kHermes, text), (Whole{"", text, {}}));
  }
}

TEST(HermesCalls, KeepWhatTheyHadWhenTheyBreakOff) {
  EXPECT_EQ(Parse(kHermes, R"(<tool_call>{"name": "f", "arguments": {"a": 1, )"),
            (Whole{"", "", {{"f", R"({"a": 1, )"}}}));
  EXPECT_EQ(Parse(kHermes, R"(<tool_call>{"name": "f", "arguments": {"a": oops} more)"),
            (Whole{"", "oops} more", {{"f", R"({"a": )"}}}));
  EXPECT_EQ(Parse(kHermes, R"(<tool_call>{"name": "f", "arguments": {}, oops)"),
            (Whole{"", ", oops", {{"f", "{}"}}}));
  EXPECT_EQ(Parse(kHermes, "<tool_call>no <tool_call>{\"name\": \"f\"}</tool_call>"),
            (Whole{"", "<tool_call>no", {{"f", "{}"}}}));
}

TEST(HermesCalls, StreamNameFirstThenArguments) {
  OutputParser parser(kHermes, ReasoningState::kNotBegun);
  EXPECT_EQ(parser.Add("Hi \xe2\x82\xac").content, "Hi \xe2\x82\xac");
  EXPECT_THAT(parser.Add("\n<tool_call>\n{\"name\": \"f\", \"argu").calls, IsEmpty());
  EXPECT_THAT(parser.Add("ments\": {\"a").calls, ElementsAre(ToolCallDelta{0, "f", "{\"a"}));
  EXPECT_THAT(parser.Add("\": \xe2\x82\xac").calls, ElementsAre(ToolCallDelta{0, "", "\": "}));
  EXPECT_EQ(parser.Add("x").content, "x");
}

TEST(HermesCalls, HoldTextOnlyWhileItMayBeAMarker) {
  OutputParser parser(kHermes, ReasoningState::kNotBegun);
  EXPECT_EQ(parser.Add("a <").content, "a");
  EXPECT_EQ(parser.Add("b").content, " <b");
  EXPECT_EQ(parser.Add("<tool_cal").content, "");
  EXPECT_EQ(parser.Add("m").content, "<tool_calm");
}

// ---- Llama 3 ----

TEST(LlamaCalls, AreTheWholeAnswer) {
  EXPECT_EQ(Parse(kLlama, R"({"name": "f", "parameters": {"a": 1}})"),
            (Whole{"", "", {{"f", R"({"a": 1})"}}}));
  EXPECT_EQ(Parse(kLlama, "\n{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\"}\n"),
            (Whole{"", "", {{"f", "{}"}, {"g", "{}"}}}));
  EXPECT_EQ(Parse(kLlama, R"(So: <|python_tag|>{"name": "f", "parameters": {}};)"),
            (Whole{"", "So:", {{"f", "{}"}}}));
}

TEST(LlamaCalls, InTheMiddleOfTextAreContent) {
  for (const char* text :
       {R"(Call {"name": "f", "parameters": {}})", R"({"answer": 42})", R"({"name": "Bob"; 1)", "{",
        "<|python_tag|>print(1)", " {\"a\": 1}{\"name\": \"f\"}"}) {
    EXPECT_EQ(Parse(kLlama, text), (Whole{"", text, {}}));
  }
  EXPECT_EQ(Parse(kLlama, R"({"name": "f"} and {"name": "g"})"),
            (Whole{"", R"( and {"name": "g"})", {{"f", "{}"}}}));
  EXPECT_EQ(Parse(kLlama, R"({"name": "f"}; or {"name": "g"})"),
            (Whole{"", R"(; or {"name": "g"})", {{"f", "{}"}}}));
}

// ---- Mistral ----

TEST(MistralCalls, AreAListOrNamesWithArguments) {
  const Whole two{"", "Well:", {{"f", R"({"a": 1})"}, {"g", "{}"}}};
  EXPECT_EQ(Parse(kMistral, R"(Well: [TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, )"
                            R"({"arguments": {}, "name": "g", "id": "123456789"}])"),
            two);
  EXPECT_EQ(Parse(kMistral, R"(Well:[TOOL_CALLS]f{"a": 1}[TOOL_CALLS]g{})"), two);
  EXPECT_EQ(Parse(kMistral, R"(Well:[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS] {})"), two);
  EXPECT_EQ(Parse(kMistral, R"(Well:[TOOL_CALLS]f[CALL_ID]x1[ARGS]{"a": 1}[TOOL_CALLS]g{})"), two);
  EXPECT_EQ(Parse(kMistral, R"([TOOL_CALLS]{"name": "f"} ok)"), (Whole{"", " ok", {{"f", "{}"}}}));
}

TEST(MistralCalls, ThatAreMalformedAreContent) {
  for (const char* text :
       {"[TOOL_CALLS]", "[TOOL_CALLS] []", "[TOOL_CALLS] [[", "[TOOL_CALLS] get weather{",
        "[TOOL_CALLS]f[ARG]{}", "[TOOL_CALLS]f[ARGS]x", "[TOOL_CALLS]f", "[TOOL_CALLS]f[CALL_ID] 1",
        "[TOOL_CALLS] [{\"name\": 1}]", "[[TOOL"}) {
    EXPECT_EQ(Parse(kMistral, text), (Whole{"", text, {}}));
  }
  EXPECT_EQ(Parse(kMistral, R"([TOOL_CALLS] [{"name": "f"}, 3])"),
            (Whole{"", ", 3]", {{"f", "{}"}}}));
}

// ---- Reasoning ----

TEST(Reasoning, IsSplitFromWhatFollows) {
  EXPECT_EQ(Parse(kThink, "<think>\nHm < 3\n</think>\n\nYes. "), (Whole{"Hm < 3", "Yes. ", {}}));
  EXPECT_EQ(Parse(kThink, "  <think></think>Yes"), (Whole{"", "Yes", {}}));
  EXPECT_EQ(Parse(kThink, "\nHm\n</think>\nYes", ReasoningState::kOpen), (Whole{"Hm", "Yes", {}}));
  EXPECT_EQ(Parse(kThink, "<think>Hm</thi", ReasoningState::kNotBegun), (Whole{"Hm</thi", "", {}}));
  EXPECT_EQ(Parse(kThink, "Hm \n", ReasoningState::kOpen), (Whole{"Hm", "", {}}));
  EXPECT_EQ(Parse(kThink, "a<think>b</think>"), (Whole{"", "a<think>b</think>", {}}));
  EXPECT_EQ(Parse(kThink, " <thin"), (Whole{"", " <thin", {}}));
  EXPECT_EQ(Parse(kThink, "<think>b</think>", ReasoningState::kClosed),
            (Whole{"", "<think>b</think>", {}}));
  EXPECT_EQ(Parse({}, "<think>b</think>", ReasoningState::kOpen),
            (Whole{"", "<think>b</think>", {}}));
}

TEST(Reasoning, HoldsNoToolCalls) {
  EXPECT_EQ(Parse(kQwen3,
                  "<think>I could <tool_call>{\"name\": \"f\"}</tool_call></think>\n\n"
                  "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>"),
            (Whole{"I could <tool_call>{\"name\": \"f\"}</tool_call>", "", {{"g", "{}"}}}));
}

// ---- Any text, cut anywhere ----

std::string RandomOutput(std::mt19937& random) {
  static constexpr std::string_view kPieces[] = {
      "<tool_call>",
      "</tool_call>",
      "<|python_tag|>",
      "[TOOL_CALLS]",
      "[ARGS]",
      "[CALL_ID]",
      "<think>",
      "</think>",
      "{\"name\": \"f\", \"arguments\": {\"a\": [1, \"\xe2\x82\xac\"]}}",
      "{\"name\": \"g\", \"parameters\": {}}",
      "{\"name\": \"h\"}",
      "{\"arguments\": {\"b\": {}},",
      "\"name\": \"i\"}",
      "f{\"x\": 1.5}",
      "[",
      "]",
      "{",
      "}",
      ";",
      ",",
      "\n",
      " ",
      "<",
      "text",
      "\xc3\xa9",
      "\"",
      "\\",
      "{\"name\": \"j\", \"arguments\": {\"a\": x}}"};
  std::string out;
  for (size_t pieces = random() % 9; pieces > 0; --pieces) {
    out += kPieces[random() % std::size(kPieces)];
  }
  if (random() % 2 == 0 && !out.empty()) out.erase(random() % out.size(), random() % 4);
  return out;
}

TEST(OutputParser, GivesTheSameHoweverTheTextIsCut) {
  std::mt19937 random(11);
  for (int round = 0; round < 20000; ++round) {
    const OutputFormat format{static_cast<ToolFormat>(random() % 5),
                              static_cast<ReasoningFormat>(random() % 2)};
    const auto state = static_cast<ReasoningState>(random() % 3);
    const std::string text = RandomOutput(random);
    const Whole whole = Parse(format, text, state);
    const Whole pieces =
        ParseInPieces(format, text, state, [&] { return 1 + random() % (1 + random() % 40); });
    ASSERT_EQ(pieces, whole) << text;
    if (whole.calls.empty() && format.reasoning == ReasoningFormat::kNone) {
      ASSERT_EQ(whole.content, text);
    }
  }
}

// ---- Formats ----

OutputFormat Auto(std::string_view source) { return *MakeOutputFormat("auto", "auto", source); }

TEST(OutputFormat, IsDetectedFromTheTemplate) {
  EXPECT_EQ(Auto("{{ messages }}"), OutputFormat());
  EXPECT_EQ(Auto("... <tool_call>\\n{\"name\": ..."), kHermes);
  EXPECT_EQ(Auto("<tool_call> {% if '</think>' in content %}"), kQwen3);
  EXPECT_EQ(Auto("<tool_call>\\n<function=").tools, ToolFormat::kNone);
  EXPECT_EQ(Auto("{{ '<|python_tag|>' }}").tools, ToolFormat::kLlama3Json);
  EXPECT_EQ(Auto(R"(Respond in the format {"name": function name, "parameters": dictionary)").tools,
            ToolFormat::kLlama3Json);
  EXPECT_EQ(Auto("[TOOL_CALLS] [").tools, ToolFormat::kMistral);
  EXPECT_EQ(Auto("[TOOL_CALLS]{{ name }}[ARGS]").tools, ToolFormat::kMistralArgs);
}

TEST(OutputFormat, IsNamedByTheOperator) {
  EXPECT_EQ(*MakeOutputFormat("hermes", "qwen3", ""), kQwen3);
  EXPECT_EQ(*MakeOutputFormat("none", "none", "<tool_call></think>"), OutputFormat());
  EXPECT_EQ(MakeOutputFormat("mistral", "deepseek_r1", "[ARGS]")->tools, ToolFormat::kMistralArgs);
  EXPECT_EQ(MakeOutputFormat("pythonic", "none", "").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeOutputFormat("none", "mystery", "").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(OutputFormat, KnowsWhereAPromptLeftOff) {
  EXPECT_EQ(StateAtEnd(""), ReasoningState::kNotBegun);
  EXPECT_EQ(StateAtEnd("<|im_start|>assistant\n"), ReasoningState::kNotBegun);
  EXPECT_EQ(StateAtEnd("assistant\n<think>\n"), ReasoningState::kOpen);
  EXPECT_EQ(StateAtEnd("assistant\n<think>\n\n</think>\n\n"), ReasoningState::kClosed);
}

}  // namespace
}  // namespace kvasir::text
