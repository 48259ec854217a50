#include "grammar/compiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "grammar/testing/walks.h"

namespace kvasir::grammar {
namespace {

using enum Constraint::Kind;
using ::testing::HasSubstr;
using testing::TinyModel;

struct Refused {
  Constraint constraint;
  std::string message;  // a part of it
};

std::string Repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

// The links of 0, 1, ..., joined.
std::string Chain(int links, const std::function<std::string(int)>& link) {
  std::string out;
  for (int i = 0; i < links; ++i) out += link(i);
  return out;
}

void ExpectRefused(const TinyModel& model, const std::vector<Refused>& cases) {
  for (const auto& [constraint, message] : cases) {
    const auto grammar = model.compiler->Compile(constraint);
    EXPECT_EQ(grammar.status().code(), absl::StatusCode::kInvalidArgument) << constraint.text;
    EXPECT_THAT(std::string(grammar.status().message()), HasSubstr(message)) << constraint.text;
  }
}

TEST(CompilerTest, RefusesWhatIsMalformed) {
  ExpectRefused(TinyModel("tiny_bpe"),
                {{{kJsonSchema, "{\"type\":"}, "JSON schema: not JSON"},
                 {{kJsonSchema, ""}, "not JSON"},
                 {{kJsonSchema, "[]"}, "an object, or true"},
                 {{kJsonSchema, R"({"type": "strin"})"}, "\"strin\" is no type"},
                 {{kJsonSchema, R"({"$ref": "#/$defs/x"})"}, "'#/$defs/x'"},
                 {{kJsonSchema, R"({"type": "string", "pattern": "a("})"}, "unclosed group"},
                 {{kJsonSchema, "{\"title\": \"\xff\"}"}, "UTF-8"},
                 {{kRegex, "a(b"}, "regular expression: at 1"},
                 {{kRegex, "\xff"}, "UTF-8"},
                 {{kLark, ""}, "no start rule"},
                 {{kLark, "start: b\nb: /[0-9/"}, "grammar: at 2(4)"},
                 {{kLark, "start: missing"}, "missing"},
                 {{kLark, "start: \"a"}, "1("}});
}

TEST(CompilerTest, RefusesWhatIsNotSupported) {
  ExpectRefused(
      TinyModel("tiny_bpe"),
      {{{kJsonSchema, R"({"type": "array", "uniqueItems": true})"}, "uniqueItems"},
       {{kJsonSchema, R"({"properties": {"a": {"not": {"type": "null"}}}})"}, "not"},
       {{kJsonSchema, R"({"type": "string", "format": "regex"})"}, "regex"},
       {{kJsonSchema, R"({"$ref": "https://example.com/schema"})"}, "https://example.com/schema"},
       {{kJsonSchema, R"({"oneOf": [{"type": "string"}, {"maxLength": 3}]})"}, "oneOf"},
       {{kJsonSchema, R"({"uniqueItems": true, "x-guidance": {"lenient": true}})"}, "uniqueItems"},
       {{kJsonSchema, R"({"x-guidance": {"lenience": true}})"}, "lenience"},
       {{kJsonSchema, R"({"x-guidance": 3})"}, "invalid type"},
       {{kRegex, "a(?=b)"}, "look-ahead"},
       {{kRegex, "(a)\\1"}, "backreferences"},
       {{kLark, "start: a\na[stop=\"q\"]: /x+/"}, "stop="},
       {{kLark, "start: a\na[max_tokens=3]: /x+/"}, "max_tokens="},
       {{kLark, "start: \"a\" <|im_end|>"}, "<|im_end|>"}});
}

TEST(CompilerTest, RefusesWhatAllowsNoOutput) {
  ExpectRefused(
      TinyModel("tiny_bpe"),
      {{{kJsonSchema, "false"}, "an object, or true"},
       {{kJsonSchema, R"({"type": "string", "const": 3})"}, "Unsatisfiable"},
       {{kJsonSchema, R"({"type": "integer", "minimum": 5, "maximum": 4})"}, "greater than"},
       {{kJsonSchema, R"({"$ref": "#"})"}, "no output"},
       {{kJsonSchema, R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object",
                         "additionalProperties": false})"},
        "Too many items"},
       {{kRegex, "[a&&b]"}, "no output"},
       {{kLark, "start: \"a\" start"}, "Too many items"},
       {{kLark, "start: A\nA: /a/ & /b/"}, "no output"}});
}

TEST(CompilerTest, RefusesWhatIsTooLong) {
  CompilerOptions options;
  options.max_text_bytes = 10;
  const TinyModel model("tiny_bpe", options);
  EXPECT_TRUE(model.Compile(kRegex, Repeat("a", 10)).ok());
  ExpectRefused(model, {{{kRegex, Repeat("a", 11)}, "longer than 10 bytes"}});
}

// Deep nesting must not overflow a stack, neither here nor in a matcher.
TEST(CompilerTest, NestsDeeply) {
  const TinyModel model("tiny_bpe");
  const auto number = [](int i) { return std::to_string(i); };
  const std::string rules =
      Chain(2000, [&](int i) { return "r" + number(i) + ": \"a\" r" + number(i + 1) + "\n"; });
  EXPECT_TRUE(model.Compile(kLark, "start: r0\n" + rules + "r2000: \"z\"\n").ok());
  const std::string tokens = Chain(
      500, [&](int i) { return "T" + number(i) + ": \"a\" | T" + number(i + 1) + " \"b\"\n"; });
  EXPECT_TRUE(model.Compile(kLark, "start: T0\n" + tokens + "T500: \"z\"\n").ok());
  const std::string definitions = Chain(2000, [&](int i) {
    return "\"d" + number(i) + "\":{\"$ref\":\"#/$defs/d" + number(i + 1) + "\"},";
  });
  EXPECT_TRUE(model
                  .Compile(kJsonSchema, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{" + definitions +
                                            "\"d2000\":{\"type\":\"null\"}}}")
                  .ok());
}

TEST(CompilerTest, RefusesWhatNestsTooDeeply) {
  const std::string open_schema = Repeat("{\"items\":", 5000) + "true" + Repeat("}", 5000);
  ExpectRefused(TinyModel("tiny_bpe"),
                {{{kJsonSchema, open_schema}, "recursion limit"},
                 {{kJsonSchema, Repeat("[", 100000)}, "more than 10000 brackets"},
                 {{kRegex, Repeat("(", 5000) + "a" + Repeat(")", 5000)}, "regular expression"},
                 {{kRegex, Repeat("(", 50000)}, "more than 10000 brackets"},
                 {{kLark, "start: " + Repeat("(", 5000) + "\"a\"" + Repeat(")", 5000)}, "nested"},
                 {{kLark, Repeat("a: b\n", 20000)}, "more than 10000 brackets and rules"}});
}

// What explodes is refused, or its matchers fail: neither hangs, and the process lives.
TEST(CompilerTest, SurvivesWhatExplodes) {
  CompilerOptions options;
  options.timeout = std::chrono::milliseconds(500);
  const TinyModel model("tiny_bpe", options);
  std::mt19937 random(5);
  for (const auto& [kind, text] : std::vector<std::pair<Constraint::Kind, std::string>>{
           {kRegex, "(.*a.{200}){20}"},
           {kRegex, "(((a{1,99}){1,99}){1,99}){1,99}"},
           {kRegex, Repeat("(ab|cd)*", 500)},
           {kRegex, "(\\pL|\\pN){1,5000}"},
           {kLark, "start: A\nA: /.*a.{30}/ & /.*b.{31}/ & /.*c.{32}/"},
           {kLark, "start: x\nx: x x | x x x | \"a\" | \"b\" |"},
           {kLark, "start: (((\"a\" b){1,999}){1,999}){1,999}\nb: \"c\""},
           {kJsonSchema, R"({"type": "integer", "multipleOf": 999999937})"},
           {kJsonSchema, R"({"type": "array", "minItems": 1000000000})"},
           {kJsonSchema, R"({"type": "string", "minLength": 1000000, "maxLength": 2000000})"}}) {
    const auto grammar = model.Compile(kind, text);
    if (!grammar.ok()) continue;
    const auto matcher = (*grammar)->NewMatcher();
    std::vector<uint32_t> mask(MaskWords(model.vocab_size));
    for (int i = 0; i < 10; ++i) {
      if (!matcher->FillMask(absl::MakeSpan(mask)).ok()) break;
      TokenId id = static_cast<TokenId>(random() % model.vocab_size);
      while (!Allows(mask, id)) id = (id + 1) % model.vocab_size;
      if (!matcher->Consume(id).ok()) break;
    }
  }
}

TEST(CompilerTest, GivesUpAtTheDeadline) {
  CompilerOptions options;
  options.timeout = std::chrono::nanoseconds(1);
  const TinyModel model("tiny_bpe", options);
  ExpectRefused(model, {{{kRegex, Repeat("(ab|cd)*", 300)}, "s to compile"}});
}

TEST(CompilerTest, KeepsTheLastUsedGrammars) {
  CompilerOptions options;
  options.cached_grammars = 2;
  const TinyModel model("tiny_bpe", options);
  const auto a = *model.Compile(kRegex, "a");
  const auto b = *model.Compile(kRegex, "b");
  EXPECT_EQ(*model.Compile(kRegex, "a"), a);
  const auto c = *model.Compile(kRegex, "c");  // b goes
  EXPECT_EQ(*model.Compile(kRegex, "a"), a);
  EXPECT_EQ(*model.Compile(kRegex, "c"), c);
  EXPECT_NE(*model.Compile(kRegex, "b"), b);
}

TEST(CompilerTest, KindsDoNotMix) {
  const TinyModel model("tiny_bpe");
  EXPECT_TRUE(model.Compile(kRegex, "true").ok());
  EXPECT_TRUE(model.Compile(kJsonSchema, "true").ok());
  EXPECT_FALSE(model.Compile(kLark, "true").ok());
}

TEST(CompilerTest, NeedsAnEndToken) {
  const TinyModel model("tiny_bpe");
  EXPECT_FALSE(MakeCompiler(*model.tokenizer, model.vocab_size, {}, {}).ok());
  EXPECT_FALSE(MakeCompiler(*model.tokenizer, model.vocab_size, {model.vocab_size}, {}).ok());
  EXPECT_FALSE(MakeCompiler(*model.tokenizer, model.vocab_size, {-1}, {}).ok());
}

TEST(CompilerTest, GrammarsOutliveTheCompiler) {
  TinyModel model("tiny_bpe");
  const auto grammar = *model.Compile(kRegex, "Hello( world)+");
  model.compiler = nullptr;
  const auto matcher = grammar->NewMatcher();
  EXPECT_FALSE(testing::Forced(*matcher).empty());
}

TEST(CompilerTest, IsThreadSafe) {
  const TinyModel model("tiny_bpe");
  std::vector<std::shared_ptr<const Grammar>> same(8);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < same.size(); ++t) {
    threads.emplace_back([&, t] {
      same[t] = *model.Compile(kJsonSchema, R"({"type": "object"})");
      const auto own = *model.Compile(kRegex, "Hello" + std::to_string(t % 4) + "[a-z]+");
      EXPECT_FALSE(model.Compile(kRegex, "(").ok());
      std::mt19937 random(static_cast<unsigned>(t));
      for (const auto& grammar : {same[t], own}) {
        bool finished;
        const auto matcher = grammar->NewMatcher();
        testing::RandomWalk(model, *matcher, random, 5, 20, &finished, [](const auto&) {});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& grammar : same) EXPECT_EQ(grammar, same[0]);
}

}  // namespace
}  // namespace kvasir::grammar
