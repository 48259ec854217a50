#include "grammar/matcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <regex>

#include "grammar/testing/walks.h"
#include "text/utf8.h"

namespace kvasir::grammar {
namespace {

using enum Constraint::Kind;
using nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::Forced;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::RandomWalk;
using testing::TinyModel;
using ::testing::UnorderedElementsAre;

constexpr char kPerson[] = R"({
  "type": "object",
  "properties": {
    "name": {"type": "string", "maxLength": 5},
    "age": {"type": "integer", "minimum": 0, "maximum": 120},
    "tags": {"type": "array", "items": {"enum": ["a", "bb", "c d"]}, "maxItems": 3},
    "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}
  },
  "required": ["name", "age", "next"],
  "additionalProperties": false
})";

const std::vector<std::string> kVocabularies = {"tiny_bpe", "tiny_spm"};

TokenId Id(const TinyModel& model, const std::string& token) {
  return model.tokenizer->TokenToId(token);
}

// Many finished outputs of a constraint.
std::vector<std::string> Outputs(const TinyModel& model, Constraint::Kind kind,
                                 const std::string& text, int walks = 30) {
  std::mt19937 random(7);
  const auto grammar = model.compiler->Compile({kind, text});
  EXPECT_TRUE(grammar.ok()) << text << ": " << grammar.status();
  std::vector<std::string> outputs;
  for (int i = 0; grammar.ok() && i < walks; ++i) {
    bool finished;
    const auto matcher = (*grammar)->NewMatcher();
    const auto ids =
        RandomWalk(model, *matcher, random, 5 + random() % 30, 400, &finished, [](const auto&) {});
    if (finished) outputs.push_back(model.TextOf(ids));
  }
  EXPECT_GT(outputs.size(), walks / 3) << text;
  return outputs;
}

void ExpectOutputsMatch(const std::string& regex) {
  const std::regex reference(regex);
  for (const std::string& vocabulary : kVocabularies) {
    for (const std::string& output : Outputs(TinyModel(vocabulary), kRegex, regex)) {
      EXPECT_TRUE(std::regex_match(output, reference)) << regex << ": " << output;
    }
  }
}

// Every finished output satisfies the schema, as `check` says.
void ExpectOutputs(const std::string& schema, const std::function<bool(const json&)>& check) {
  for (const std::string& vocabulary : kVocabularies) {
    for (const std::string& output : Outputs(TinyModel(vocabulary), kJsonSchema, schema)) {
      try {
        EXPECT_TRUE(check(json::parse(output))) << schema << ": " << output;
      } catch (const json::out_of_range&) {
        // JSON, with a number that no double holds.
      } catch (const json::exception& e) {
        ADD_FAILURE() << e.what() << ": " << output;
      }
    }
  }
}

bool IsPerson(const json& value) {
  if (!value.is_object() || value.size() > 4 || !value.contains("next")) return false;
  const int age = value.at("age");
  for (const json& tag : value.value("tags", json::array())) {
    if (tag != "a" && tag != "bb" && tag != "c d") return false;
  }
  return value.at("name").is_string() && age >= 0 && age <= 120 &&
         (value["next"].is_null() || IsPerson(value["next"]));
}

TEST(MatcherTest, AllowsAnEndWhereTheOutputMayEndOnly) {
  const TinyModel model("tiny_bpe");
  const auto matcher = model.Start(kRegex, "ab?");
  ASSERT_NE(matcher, nullptr);
  EXPECT_THAT(model.Allowed(*matcher), ElementsAre(Id(model, "a")));
  ASSERT_TRUE(matcher->Consume(Id(model, "a")).ok());
  EXPECT_FALSE(matcher->ended());
  EXPECT_THAT(model.Allowed(*matcher),
              UnorderedElementsAre(model.vocab.eos_id, model.vocab.bos_id, Id(model, "b")));
  ASSERT_TRUE(matcher->Consume(Id(model, "b")).ok());
  EXPECT_TRUE(matcher->ended());
}

TEST(MatcherTest, AllowsNothingButEndsOnceEnded) {
  const TinyModel model("tiny_bpe");
  const auto matcher = model.Start(kRegex, "a+");
  ASSERT_NE(matcher, nullptr);
  ASSERT_TRUE(matcher->Consume(Id(model, "a")).ok());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(matcher->Consume(model.vocab.eos_id).ok());
    EXPECT_TRUE(matcher->ended());
    EXPECT_THAT(Forced(*matcher), IsEmpty());
    EXPECT_THAT(model.Allowed(*matcher),
                UnorderedElementsAre(model.vocab.eos_id, model.vocab.bos_id));
  }
  ASSERT_TRUE(matcher->Rollback(3).ok());
  EXPECT_FALSE(matcher->ended());
  EXPECT_THAT(model.Allowed(*matcher), Contains(Id(model, "a")));
}

TEST(MatcherTest, AnEmptyOutputEndsAtTheBeginning) {
  const TinyModel model("tiny_bpe");
  const auto matcher = model.Start(kLark, "start: \"\"");
  ASSERT_NE(matcher, nullptr);
  EXPECT_TRUE(matcher->ended());
  EXPECT_THAT(model.Allowed(*matcher),
              UnorderedElementsAre(model.vocab.eos_id, model.vocab.bos_id));
}

TEST(MatcherTest, AnErrorLasts) {
  const TinyModel model("tiny_bpe");
  const auto forbidden = model.Start(kRegex, "a+");
  ASSERT_NE(forbidden, nullptr);
  const auto fresh = forbidden->Clone();
  EXPECT_FALSE(forbidden->Consume(Id(model, "b")).ok());
  EXPECT_FALSE(forbidden->Consume(Id(model, "a")).ok());
  EXPECT_FALSE(forbidden->Forced().ok());
  EXPECT_FALSE(forbidden->Rollback(0).ok());
  EXPECT_FALSE(forbidden->Clone()->Forced().ok());
  EXPECT_TRUE(fresh->Consume(Id(model, "a")).ok());
  EXPECT_FALSE(fresh->Rollback(2).ok());
  for (const TokenId id : {-1, model.vocab_size - 1, model.vocab_size, model.vocab_size + 100}) {
    EXPECT_FALSE(model.Start(kRegex, "a+")->Consume(id).ok()) << id;
  }
}

TEST(MatcherTest, NeverAllowsWhatTheTokenizerDoesNotHave) {
  for (const std::string& vocabulary : kVocabularies) {
    const TinyModel model(vocabulary);
    for (const auto& [kind, text] : {std::pair{kRegex, "(.|\n)*"}, {kLark, "start: <[*]>"}}) {
      const auto matcher = model.Start(kind, text);
      ASSERT_NE(matcher, nullptr);
      EXPECT_LT(model.Allowed(*matcher).back(), model.tokenizer->vocab_size()) << text;
    }
  }
}

TEST(MatcherTest, ASpecialTokenNeverMatchesText) {
  const TinyModel model("tiny_bpe");
  const TokenId special = Id(model, "<|im_start|>");
  for (const auto& [kind, text] : {std::pair{kRegex, "(.|\n)*"},
                                   {kRegex, "<\\|im_start\\|>"},
                                   {kLark, "start: \"<|im_start|>\" /x*/"},
                                   {kJsonSchema, R"({"const": "<|im_start|>"})"}}) {
    const auto matcher = model.Start(kind, text);
    ASSERT_NE(matcher, nullptr);
    EXPECT_THAT(model.Allowed(*matcher), Not(Contains(special))) << text;
    EXPECT_THAT(Forced(*matcher), Not(Contains(special))) << text;
  }
}

TEST(MatcherTest, ALarkGrammarMayNameASpecialToken) {
  TinyModel model("tiny_bpe");
  model.compiler =
      *MakeCompiler(*model.tokenizer, model.vocab_size, {model.vocab.eos_id}, CompilerOptions{});
  const auto matcher = model.Start(kLark, "start: \"a\" <|im_start|>");
  ASSERT_NE(matcher, nullptr);
  ASSERT_TRUE(matcher->Consume(Id(model, "a")).ok());
  EXPECT_THAT(model.Allowed(*matcher), ElementsAre(Id(model, "<|im_start|>")));
  ASSERT_TRUE(matcher->Consume(Id(model, "<|im_start|>")).ok());
  EXPECT_TRUE(matcher->ended());
  ASSERT_TRUE(matcher->Rollback(1).ok());
  EXPECT_THAT(model.Allowed(*matcher), ElementsAre(Id(model, "<|im_start|>")));
}

TEST(MatcherTest, SplitsCharactersOverTokens) {
  for (const std::string& vocabulary : kVocabularies) {
    const TinyModel model(vocabulary);
    // U+1F980 is no token: its bytes come one by one.
    const auto matcher = model.Start(kRegex, "🦀|🦁");
    ASSERT_NE(matcher, nullptr);
    std::vector<TokenId> taken;
    while (!matcher->ended() && taken.size() < 10) {
      taken.push_back(model.Allowed(*matcher).front());
      ASSERT_TRUE(matcher->Consume(taken.back()).ok());
    }
    EXPECT_GT(taken.size(), 1u);
    EXPECT_EQ(model.TextOf(taken), "🦀");
  }
}

TEST(MatcherTest, OutputsAreUtf8) {
  for (const std::string& vocabulary : kVocabularies) {
    for (const std::string& output : Outputs(TinyModel(vocabulary), kRegex, "(.|\n){0,20}")) {
      EXPECT_TRUE(text::IsValidUtf8(output)) << output;
    }
  }
}

TEST(MatcherTest, OutputsMatchTheRegex) {
  ExpectOutputsMatch("[a-z]{2,8}( [a-z0-9]+)*");
  ExpectOutputsMatch("(foo|ba[rz])+\\.(com|org)");
  ExpectOutputsMatch("-?(0|[1-9][0-9]{0,3})(\\.[0-9]+)?");
  ExpectOutputsMatch("[ -!#-9A-Z]{3}/x");
}

TEST(MatcherTest, OutputsMatchTheSchema) {
  ExpectOutputs(kPerson, IsPerson);
  ExpectOutputs(R"({"type": "object"})", [](const json& v) { return v.is_object(); });
  ExpectOutputs("true", [](const json&) { return true; });
  ExpectOutputs(R"({"enum": ["x", 3, null, {"a": [1]}]})", [](const json& v) {
    return v == "x" || v == 3 || v == nullptr || v == json({{"a", {1}}});
  });
  ExpectOutputs(R"({"type": "number", "minimum": -1.5, "exclusiveMaximum": 2})",
                [](const json& v) { return v.is_number() && v >= -1.5 && v < 2; });
  ExpectOutputs(R"({"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 100})",
                [](const json& v) { return v >= 10 && v <= 100 && v.get<int>() % 7 == 0; });
  ExpectOutputs(R"({"type": "string", "pattern": "^a[0-9]{2,4}$"})", [](const json& v) {
    return std::regex_match(v.get<std::string>(), std::regex("a[0-9]{2,4}"));
  });
  ExpectOutputs(R"({"type": "string", "format": "date"})", [](const json& v) {
    return std::regex_match(v.get<std::string>(), std::regex("\\d{4}-\\d{2}-\\d{2}"));
  });
  ExpectOutputs(R"({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3})",
                [](const json& v) { return v.size() >= 2 && v.size() <= 3; });
}

TEST(MatcherTest, OutputsMatchReferencesAndAlternatives) {
  ExpectOutputs(
      R"({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {
        "v": {"type": "integer", "minimum": 0, "maximum": 9},
        "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1}},
        "required": ["v", "kids"], "additionalProperties": false}}})",
      [](const json& v) { return v.at("v") <= 9 && v.at("kids").size() <= 1 && v.size() == 2; });
  ExpectOutputs(
      R"({"oneOf": [
        {"type": "object", "properties": {"k": {"const": "a"}, "n": {"type": "integer"}},
         "required": ["k", "n"], "additionalProperties": false},
        {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"],
         "additionalProperties": false}]})",
      [](const json& v) {
        return (v.at("k") == "a" && v.at("n").is_number()) || v == json({{"k", "b"}});
      });
  ExpectOutputs(R"({"anyOf": [{"type": "boolean"}, {"type": "null"}]})",
                [](const json& v) { return v.is_boolean() || v.is_null(); });
}

TEST(MatcherTest, WritesJsonAsModelsDo) {
  const TinyModel model("tiny_bpe");
  const auto matcher = model.Start(
      kJsonSchema, R"({"type": "object", "properties": {"a": {"const": [1, 2]}, "b": {"const": 3}},
                       "required": ["a", "b"], "additionalProperties": false})");
  ASSERT_NE(matcher, nullptr);
  EXPECT_EQ(model.TextOf(Forced(*matcher)), R"({"a": [1, 2], "b": 3})");
}

TEST(MatcherTest, OutputsMatchTheGrammar) {
  const std::string expression =
      "start: term ((\"+\" | \"-\") term)*\n"
      "term: NUMBER | \"(\" start \")\"\n"
      "NUMBER: /[0-9]{1,3}/\n";
  for (const std::string& output : Outputs(TinyModel("tiny_bpe"), kLark, expression)) {
    EXPECT_EQ(output.find_first_not_of("0123456789+-()"), std::string::npos) << output;
    EXPECT_EQ(std::count(output.begin(), output.end(), '('),
              std::count(output.begin(), output.end(), ')'));
  }
}

TEST(MatcherTest, ForcesTheCanonicalTokens) {
  for (const std::string& vocabulary : kVocabularies) {
    const TinyModel model(vocabulary);
    for (const std::string text :
         {"Hello world, the quick brown fox", " the", "münchen 你好", "a"}) {
      const auto matcher = model.Start(kLark, "start: " + json(text).dump());
      ASSERT_NE(matcher, nullptr);
      EXPECT_EQ(Forced(*matcher), *model.tokenizer->EncodeContinuation(text)) << text;
      EXPECT_EQ(model.TextOf(Forced(*matcher)), text);
    }
  }
}

TEST(MatcherTest, ForcesNothingThatAnotherTokenizationMayCross) {
  const TinyModel model("tiny_bpe");
  // " th" must come, but perhaps as a part of " the".
  const auto matcher = model.Start(kRegex, " th[a-z]*");
  ASSERT_NE(matcher, nullptr);
  EXPECT_THAT(Forced(*matcher), IsEmpty());
  const std::vector<TokenId> the = *model.tokenizer->EncodeContinuation(" the");
  ASSERT_EQ(the.size(), 1u);
  EXPECT_THAT(model.Allowed(*matcher), Contains(the[0]));
}

struct Place {
  std::vector<TokenId> forced;
  std::vector<uint32_t> mask;
  bool ended = false;

  friend bool operator==(const Place&, const Place&) = default;
};

Place PlaceOf(const TinyModel& model, Matcher& matcher) {
  return {Forced(matcher), model.Mask(matcher), matcher.ended()};
}

// What a matcher says is a function of the tokens it took: however it came there.
void ExpectPlacesAreFunctionsOfTokens(const TinyModel& model, const Constraint& constraint) {
  std::mt19937 random(11);
  const auto grammar = model.compiler->Compile(constraint);
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  for (int walk = 0; walk < 4; ++walk) {
    const auto matcher = (*grammar)->NewMatcher();
    std::vector<Place> places;
    std::vector<std::unique_ptr<Matcher>> clones;
    bool finished;
    auto taken = RandomWalk(model, *matcher, random, 12, 25, &finished, [&](const auto&) {
      clones.push_back(matcher->Clone());  // before it was asked
      places.push_back(PlaceOf(model, *matcher));
    });
    const auto replay = (*grammar)->NewMatcher();
    for (size_t i = 0; i < places.size(); ++i) {
      EXPECT_EQ(PlaceOf(model, *clones[i]), places[i]) << "clone at " << i;
      // Half of the replay is not asked: masks leave no trace.
      if (i % 2 == 0) {
        EXPECT_EQ(PlaceOf(model, *replay), places[i]) << "replay at " << i;
      }
      if (i < taken.size()) {
        ASSERT_TRUE(replay->Consume(taken[i]).ok());
      }
    }
    if (finished) taken.push_back(model.vocab.eos_id);
    for (size_t at = taken.size(); at > 0;) {
      const size_t back = 1 + random() % std::min<size_t>(at, 4);
      ASSERT_TRUE(matcher->Rollback(static_cast<int32_t>(back)).ok());
      at -= back;
      EXPECT_EQ(PlaceOf(model, *matcher), places[at]) << "rolled back to " << at;
      if (random() % 2 == 0 && at + 1 < taken.size()) {  // and forth again
        ASSERT_TRUE(matcher->Consume(taken[at]).ok());
        EXPECT_EQ(PlaceOf(model, *matcher), places[at + 1]);
        ++at;
      }
    }
  }
}

TEST(MatcherTest, PlacesAreFunctionsOfTheTokens) {
  for (const std::string& vocabulary : kVocabularies) {
    const TinyModel model(vocabulary);
    for (const Constraint& constraint : std::vector<Constraint>{
             {kJsonSchema, kPerson},
             {kJsonSchema, R"({"type": "object"})"},
             {kRegex, "(Hello|the quick|th[a-z]*|你好|😀+)( (brown|b.*n))*"},
             {kRegex, ".*"},
             {kLark, "start: \"the \" start | \"fox\" | x\nx: \"(\" x \")\" | /[a-z]+/"},
             {kLark, "start: x\nx: x x | \"a\" | \"ab\" | \"b\""}}) {
      SCOPED_TRACE(vocabulary + ": " + constraint.text);
      ExpectPlacesAreFunctionsOfTokens(model, constraint);
    }
  }
}

// Takes Forced() as one where there is any: the mask allows each of them in turn.
TEST(MatcherTest, TheMaskAllowsTheForcedTokensOnly) {
  for (const std::string& vocabulary : kVocabularies) {
    const TinyModel model(vocabulary);
    const auto matcher = model.Start(kJsonSchema, kPerson);
    ASSERT_NE(matcher, nullptr);
    std::mt19937 random(3);
    for (int steps = 0; steps < 60 && !matcher->ended(); ++steps) {
      const std::vector<TokenId> forced = Forced(*matcher);
      for (const TokenId id : forced) {
        EXPECT_THAT(model.Allowed(*matcher), ElementsAre(id));
        ASSERT_TRUE(matcher->Consume(id).ok());
      }
      if (matcher->ended()) break;
      const std::vector<TokenId> allowed = model.Allowed(*matcher);
      ASSERT_TRUE(matcher->Consume(allowed[random() % allowed.size()]).ok());
    }
  }
}

}  // namespace
}  // namespace kvasir::grammar
