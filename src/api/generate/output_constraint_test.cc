#include "api/generate/output_constraint.h"

#include <gtest/gtest.h>

#include "api/generate/lark.h"

namespace kvasir::api {
namespace {

using text::ReasoningFormat;
using text::ReasoningState;
using text::ToolFormat;

constexpr std::string_view kF = R"({"type":"object","required":["a"]})";

class OutputConstraintTest : public ::testing::Test {
 protected:
  OutputConstraintTest() {
    rules_.format.tools = ToolFormat::kHermes;
    rules_.tools.tools = {{.name = "f", .parameters = Json::parse(kF)},
                          {.name = "g", .parameters = {{"type", "object"}}}};
    rules_.tools.choice = ToolChoice::kRequired;
  }

  std::optional<Constraint> Get() {
    return OutputConstraint(rules_, [this](std::string_view text) -> std::optional<TokenId> {
      for (size_t i = 0; i < controls_.size(); ++i) {
        if (controls_[i] == text) return static_cast<TokenId>(100 + i);
      }
      return std::nullopt;
    });
  }
  // Without what every schema says of spaces.
  static std::string WithoutSpaces(std::string lark) {
    const std::string spaces =
        R"(,"x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": "})";
    for (size_t at; (at = lark.find(spaces)) != std::string::npos;) lark.erase(at, spaces.size());
    return lark;
  }
  std::string Lark() {
    const std::optional<Constraint> constraint = Get();
    EXPECT_TRUE(constraint && constraint->kind == Constraint::Kind::kLark);
    return constraint ? WithoutSpaces(constraint->text) : "";
  }

  OutputRules rules_;
  std::vector<std::string> controls_;
};

TEST_F(OutputConstraintTest, RequiresCallsAsHermesWritesThem) {
  EXPECT_EQ(Lark(), R"(start: body
call_0: "\n{\"name\": \"f\", \"arguments\": " %json {"type":"object","required":["a"]} "}\n"
call_1: "\n{\"name\": \"g\", \"arguments\": " %json {"type":"object"} "}\n"
call: call_0 | call_1
body: "<tool_call>" call "</tool_call>" ("\n" "<tool_call>" call "</tool_call>")*
)");
}

TEST_F(OutputConstraintTest, NamesOneFunctionAndOneCall) {
  rules_.tools.choice = ToolChoice::kNamed;
  rules_.tools.named = "g";
  rules_.tools.parallel = false;
  EXPECT_EQ(Lark(), R"(start: body
call_1: "\n{\"name\": \"g\", \"arguments\": " %json {"type":"object"} "}\n"
call: call_1
body: "<tool_call>" call "</tool_call>"
)");
}

TEST_F(OutputConstraintTest, NamesControlTokensByTheirIds) {
  controls_ = {"<tool_call>", "</tool_call>"};
  rules_.tools.tools.pop_back();
  EXPECT_EQ(Lark(), R"(start: body
call_0: "\n{\"name\": \"f\", \"arguments\": " %json {"type":"object","required":["a"]} "}\n"
call: call_0
body: <[100]> call <[101]> ("\n" <[100]> call <[101]>)*
)");
}

TEST_F(OutputConstraintTest, WritesCallsAsLlamaAndMistralDo) {
  rules_.tools.tools.pop_back();
  rules_.format.tools = ToolFormat::kLlama3Json;
  EXPECT_EQ(Lark(), R"(start: body
call_0: "{\"name\": \"f\", \"parameters\": " %json {"type":"object","required":["a"]} "}"
call: call_0
body: call ("; " call)*
)");
  controls_ = {"[TOOL_CALLS]", "[ARGS]"};
  rules_.format.tools = ToolFormat::kMistral;
  EXPECT_EQ(Lark(), R"(start: body
call_0: "{\"name\": \"f\", \"arguments\": " %json {"type":"object","required":["a"]} "}"
call: call_0
body: <[100]> " [" call (", " call)* "]"
)");
  rules_.format.tools = ToolFormat::kMistralArgs;
  EXPECT_EQ(Lark(), R"(start: body
call_0: "f" <[101]> %json {"type":"object","required":["a"]}
call: call_0
body: <[100]> call (<[100]> call)*
)");
}

TEST_F(OutputConstraintTest, EscapesNames) {
  rules_.tools.tools = {{.name = "a\"b\\\xc3\xa9", .parameters = Json::parse(kF)}};
  rules_.tools.parallel = false;
  rules_.format.tools = ToolFormat::kMistralArgs;  // a name like that is no bare word
  EXPECT_EQ(Lark(), R"(start: body
call_0: "{\"name\": \"a\\\"b\\\\\u00e9\", \"arguments\": " %json {"type":"object","required":["a"]} "}"
call: call_0
body: "[TOOL_CALLS]" " [" call "]"
)");
}

TEST_F(OutputConstraintTest, LeavesFreeCallsFree) {
  rules_.tools.choice = ToolChoice::kAuto;
  EXPECT_EQ(Get(), std::nullopt);
  rules_.tools.choice = ToolChoice::kNone;
  EXPECT_EQ(Get(), std::nullopt);
}

TEST_F(OutputConstraintTest, HoldsStrictToolsToTheirSchemas) {
  rules_.tools.choice = ToolChoice::kAuto;
  rules_.tools.tools[0].strict = true;
  EXPECT_EQ(Lark(), R"(start: body
call_0: "\n{\"name\": \"f\", \"arguments\": " %json {"type":"object","required":["a"]} "}\n"
call_1: "\n{\"name\": \"g\", \"arguments\": " %json {"type":"object"} "}\n"
call: call_0 | call_1
TEXT: /(.|\n)*/
before_call[lazy]: TEXT "<tool_call>"
body: (before_call call "</tool_call>" ("\n" "<tool_call>" call "</tool_call>")*)* TEXT
)");
  controls_ = {"<tool_call>", "</tool_call>"};
  rules_.tools.parallel = false;
  EXPECT_TRUE(Lark().ends_with("body: TEXT (<[100]> call <[101]>)?\n")) << Lark();
  rules_.format.tools = ToolFormat::kLlama3Json;
  EXPECT_TRUE(
      Lark().ends_with("BARE: /[ \\t\\r\\n]*[^{ \\t\\r\\n](.|\\n)*/\n"
                       "body: BARE | call | \"\"\n"))
      << Lark();
}

TEST_F(OutputConstraintTest, AllowsOneCallAtMostWhereAsked) {
  rules_.tools.choice = ToolChoice::kAuto;
  rules_.tools.parallel = false;
  const std::string lark = Lark();
  EXPECT_TRUE(lark.ends_with("body: TEXT | before_call call \"</tool_call>\"\n")) << lark;
  EXPECT_EQ(lark.find("required"), std::string::npos) << "the arguments are not held to a schema";
}

TEST_F(OutputConstraintTest, PutsConstrainedContentBesideCalls) {
  rules_.tools.choice = ToolChoice::kAuto;
  rules_.tools.tools.pop_back();
  rules_.content = {Constraint::Kind::kJsonSchema, R"({"type":"array"})"};
  EXPECT_TRUE(
      Lark().ends_with("body: %json {\"type\":\"array\"} | \"<tool_call>\" call "
                       "\"</tool_call>\" (\"\\n\" \"<tool_call>\" call "
                       "\"</tool_call>\")*\n"))
      << Lark();
  rules_.format.tools = ToolFormat::kLlama3Json;
  EXPECT_TRUE(Lark().ends_with("body: %json {\"type\":\"array\"}\n")) << Lark();
}

TEST_F(OutputConstraintTest, PassesAConstraintOnWhereThereIsNothingElse) {
  rules_.tools.choice = ToolChoice::kNone;
  rules_.content = {Constraint::Kind::kRegex, "a|b"};
  EXPECT_EQ(Get(), rules_.content);
  rules_.format.reasoning = ReasoningFormat::kThinkTags;
  rules_.reasoning = ReasoningState::kClosed;
  EXPECT_EQ(Get(), rules_.content);
}

TEST_F(OutputConstraintTest, LeavesReasoningFree) {
  rules_.tools.choice = ToolChoice::kNone;
  rules_.format.reasoning = ReasoningFormat::kThinkTags;
  rules_.content = {Constraint::Kind::kRegex, "a/b"};
  EXPECT_EQ(Lark(), R"(start: (thought gap)? body
TEXT: /(.|\n)*/
gap: "\n\n" | "\n" | ""
thought[lazy]: "<think>" TEXT "</think>"
body: /a\/b/
)");
  rules_.reasoning = ReasoningState::kOpen;
  controls_ = {"<think>", "</think>"};
  rules_.content = {Constraint::Kind::kLark, "start: \"x\""};
  EXPECT_EQ(Lark(), R"(start: thought gap body
TEXT: /(.|\n)*/
gap: "\n\n" | "\n" | ""
thought: TEXT <[101]>
body: %lark {
start: "x"
}
)");
}

TEST(Lark, EscapesStringsAndExpressions) {
  EXPECT_EQ(LarkString("a\"\\\n\x7f\xf0\x9f\x98\x80"), R"("a\"\\\n\u007f\ud83d\ude00")");
  EXPECT_EQ(LarkRegex(R"(a/b\/c\\/)"), R"(/a\/b\/c\\\//)");
  EXPECT_EQ(LarkRegex(""), "\"\"");
}

}  // namespace
}  // namespace kvasir::api
