#include "grammar/spellings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "grammar/ebnf.h"
#include "grammar/testing/walks.h"

namespace kvasir::grammar {
namespace {

using ::testing::HasSubstr;
using testing::TinyModel;

// Whether the constraint accepts the whole text, byte by byte.
bool Accepts(const TinyModel& model, const Constraint& constraint, const std::string& text) {
  const auto grammar = model.compiler->Compile(constraint);
  EXPECT_TRUE(grammar.ok()) << constraint.text << ": " << grammar.status();
  if (!grammar.ok()) return false;
  const auto matcher = (*grammar)->NewMatcher();
  const std::vector<TokenId> ids = *model.tokenizer->EncodeContinuation(text);
  for (const TokenId id : ids) {
    if (!matcher->Consume(id).ok()) return false;
  }
  return matcher->Consume(model.vocab.eos_id).ok();
}

std::string RandomWord(std::mt19937& random, const std::string& letters) {
  std::string word;
  for (int n = random() % 8; n > 0; --n) word += letters[random() % letters.size()];
  return word;
}

// The EBNF accepts what the regex does, and nothing else, of random words of `letters`.
void ExpectSameLanguage(const std::string& ebnf, const std::string& regex,
                        const std::string& letters) {
  const TinyModel model("tiny_bpe");
  const auto constraint = FromGrammar(ebnf);
  ASSERT_TRUE(constraint.ok()) << ebnf << ": " << constraint.status();
  const std::regex reference(regex);
  std::mt19937 random(9);
  for (int i = 0; i < 150; ++i) {
    const std::string word = RandomWord(random, letters);
    EXPECT_EQ(Accepts(model, *constraint, word), std::regex_match(word, reference))
        << ebnf << ": \"" << word << "\"\n"
        << constraint->text;
  }
}

void ExpectError(const std::string& ebnf, const std::string& message) {
  const auto lark = EbnfToLark(ebnf);
  EXPECT_EQ(lark.status().code(), absl::StatusCode::kInvalidArgument) << ebnf;
  EXPECT_THAT(std::string(lark.status().message()), HasSubstr(message)) << ebnf;
}

TEST(SpellingsTest, AnyJsonObjectIsOne) {
  const TinyModel model("tiny_bpe");
  EXPECT_TRUE(Accepts(model, AnyJsonObject(), R"({"a": [1, {}], "b": "x"})"));
  EXPECT_FALSE(Accepts(model, AnyJsonObject(), "[1]"));
}

TEST(SpellingsTest, OneOfIsOneOfTheChoices) {
  const std::vector<std::string> choices = {
      "yes",    "ye",         "",        "no\n\"quoted\" \\back",  "/slash/",
      "# hash", "<|im_end|>", "你好 😀", std::string("\0\x7f", 2), "a\tb"};
  for (const std::string vocabulary : {"tiny_bpe", "tiny_spm"}) {
    const TinyModel model(vocabulary);
    const auto constraint = OneOf(choices);
    ASSERT_TRUE(constraint.ok());
    for (const std::string& choice : choices) {
      EXPECT_TRUE(Accepts(model, *constraint, choice)) << choice;
    }
    for (const std::string other : {"y", "yesye", "Yes", "no", "你"}) {
      EXPECT_FALSE(Accepts(model, *constraint, other)) << other;
    }
  }
}

TEST(SpellingsTest, OneOfNeedsChoices) {
  EXPECT_FALSE(OneOf({}).ok());
  EXPECT_THAT(OneOf({"a", "\xff"}).status().message(), HasSubstr("choice 1"));
}

TEST(SpellingsTest, ATextWithoutEbnfIsLark) {
  const Constraint lark{Constraint::Kind::kLark, "start: \"a\"\n"};
  EXPECT_EQ(*FromGrammar(lark.text), lark);
  EXPECT_EQ(FromGrammar("root ::= \"a\"")->kind, Constraint::Kind::kLark);
}

TEST(SpellingsTest, ASchemaInLarkIsWrittenAsOneAlone) {
  const TinyModel model("tiny_bpe");
  const std::string schema = R"({"type": "object", "properties": {"a": {"type": "integer"}},
                                 "required": ["a"], "additionalProperties": false})";
  const auto item = SchemaInLark(schema);
  ASSERT_TRUE(item.ok());
  const Constraint lark{Constraint::Kind::kLark, "start: \"<\" j \">\"\nj: " + *item + "\n"};
  EXPECT_TRUE(Accepts(model, lark, R"(<{"a": 1}>)"));
  EXPECT_FALSE(Accepts(model, lark, R"(<{"a":1}>)"));
  EXPECT_FALSE(Accepts(model, lark, R"(<{ "a": 1 }>)"));
  EXPECT_FALSE(SchemaInLark("[]").ok());
  EXPECT_FALSE(SchemaInLark("{").ok());
}

TEST(EbnfTest, HasTheLanguageOfTheRegex) {
  ExpectSameLanguage(R"(root ::= "a" "b")", "ab", "ab");
  ExpectSameLanguage(R"(root ::= "a" | "b" "c" | "")", "a|bc|", "abc");
  ExpectSameLanguage(R"(root ::= ("a" | "b")* "ab")", "(a|b)*ab", "ab");
  ExpectSameLanguage(R"(root ::= "a"+ "b"? "c"*)", "a+b?c*", "abc");
  ExpectSameLanguage(R"(root ::= "a"{2} ("b"{1,3} | "c"{,2} "d"{2,}))", "aa(b{1,3}|c{0,2}d{2,})",
                     "aabcd");
  ExpectSameLanguage(R"(root ::= "a"{0} "b" "c"{0,0})", "b", "abc");
  ExpectSameLanguage(R"(root ::= [a-c] [^a-c] [x-])", "[a-c][^a-c][x-]", "ax-");
  ExpectSameLanguage(R"(root ::= . "b" .)", ".b.", "abc");
  ExpectSameLanguage(R"(root ::= [\]\[^] [\x61-\u0063\U00000064] "\x61\n")", "[\\]\\[^][a-d]a\n",
                     "[]^abd\n");
  ExpectSameLanguage(R"(root ::= word (" " word)*
word ::= letter+
letter ::= [a-c] | "-")",
                     "[a-c-]+( [a-c-]+)*", "ab- ");
}

TEST(EbnfTest, RulesGoOnOverLines) {
  ExpectSameLanguage(
      "# all\nroot ::= # here\n  \"a\"\n  | b-c # \"::=\" in a comment\n\n"
      "  (\n\"d\"\n)\nb-c ::= \"b\"\n",
      "a|bd", "abd");
  ExpectSameLanguage("b::=\"b\"root::=\"a\"b", "ab", "ab");
}

TEST(EbnfTest, Recurses) {
  const TinyModel model("tiny_bpe");
  const auto sum = FromGrammar(R"GBNF(root ::= term (("+" | "-") term)*
term ::= [0-9]+ | "(" root ")")GBNF");
  ASSERT_TRUE(sum.ok()) << sum.status();
  for (const std::string text : {"1", "(1)", "1+(2-(345))-6", "((7))"}) {
    EXPECT_TRUE(Accepts(model, *sum, text)) << text;
  }
  for (const std::string text : {"", "(1", "1)", "1+", "()", "1++2"}) {
    EXPECT_FALSE(Accepts(model, *sum, text)) << text;
  }
}

// "ab" must not be taken as one piece where a single letter fits.
TEST(EbnfTest, RecursiveRulesMatchWhatStandsBetween) {
  const TinyModel model("tiny_bpe");
  const auto nested = FromGrammar(R"(root ::= "<" [a-c]* "ab" root? ">")");
  ASSERT_TRUE(nested.ok()) << nested.status();
  for (const std::string text : {"<ab>", "<abab>", "<cab<aab>>"}) {
    EXPECT_TRUE(Accepts(model, *nested, text)) << text << "\n" << nested->text;
  }
  EXPECT_FALSE(Accepts(model, *nested, "<ba>"));
}

TEST(EbnfTest, ReadsTheJsonGrammarOfLlamaCpp) {
  const TinyModel model("tiny_bpe");
  const auto json = FromGrammar(R"GBNF(
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
)GBNF");
  ASSERT_TRUE(json.ok()) << json.status();
  for (const std::string text : {R"({})", R"({"a":1})", R"({"a": [1, {"b\n": null}], "c": -2.5e1})",
                                 "{\n  \"x\": \"\\u00e9 ü\"\n}"}) {
    EXPECT_TRUE(Accepts(model, *json, text)) << text;
  }
  for (const std::string text : {"[]", "{", R"({"a"})", R"({"a": 01x})", R"({"a": tru})"}) {
    EXPECT_FALSE(Accepts(model, *json, text)) << text;
  }
}

TEST(EbnfTest, ErrorsNameLineAndColumn) {
  ExpectError("", "no rule \"root\"");
  ExpectError("a ::= \"b\"", "no rule \"root\"");
  ExpectError("root ::= \"a\" b", "line 1, column 14: no rule \"b\"");
  ExpectError("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: a second rule");
  ExpectError("root ::= \"a\"\n\n  x := \"b\"", "line 3, column 5: expected a text");
  ExpectError("root ::= \"a", "line 1, column 10: this text is not closed");
  ExpectError("root ::= [a", "line 1, column 10: this class is not closed");
  ExpectError("root ::= [a-", "unexpected end");
  ExpectError("root ::= []", "line 1, column 10: this class is empty");
  ExpectError("root ::= [z-a]", "line 1, column 11: this range is empty");
  ExpectError("root ::= (\"a\"\n", "line 1, column 10: this ( is not closed");
  ExpectError("root ::= \"a\")", "line 1, column 13");
  ExpectError("root ::= \"a\"{3,2}", "line 1, column 13: this range is empty");
  ExpectError("root ::= \"a\"{}", "line 1, column 13: expected {n}");
  ExpectError("root ::= \"a\"{1000000}", "repetitions");
  ExpectError("root ::= \"\\q\"", "line 1, column 11: unknown escape");
  ExpectError("root ::= \"\\x4\"", "expected 2 hexadecimal digits");
  ExpectError("root ::= \"\\ud800\"", "not a character");
  ExpectError("root ::= (=\"a\")", "lookahead");
  ExpectError("root ::= " + std::string(200, '('), "nested too deeply");
  ExpectError("root \"a\" ::= x", "line 1, column 6: expected ::=");
  ExpectError("1 ::= x", "line 1, column 1: expected the name of a rule");
  ExpectError("root ::= \"\xff\"", "UTF-8");
}

}  // namespace
}  // namespace kvasir::grammar
