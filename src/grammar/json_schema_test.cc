// What a JSON schema allows and refuses, where llguidance alone would do otherwise.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "grammar/testing/walks.h"

namespace kvasir::grammar {
namespace {

using enum Constraint::Kind;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::TinyModel;

const TinyModel& Model() {
  static const TinyModel model("tiny_bpe");
  return model;
}

bool Accepts(const Grammar& grammar, const std::string& text) {
  const auto matcher = grammar.NewMatcher();
  const auto ids = Model().tokenizer->EncodeContinuation(text);
  for (const TokenId id : *ids) {
    if (!matcher->Consume(id).ok()) return false;
  }
  return matcher->Consume(Model().vocab.eos_id).ok();
}

struct Language {
  std::string schema;
  std::vector<std::string> allowed;
  std::vector<std::string> forbidden;
};

void ExpectLanguages(const std::vector<Language>& languages) {
  for (const Language& language : languages) {
    const auto grammar = Model().Compile(kJsonSchema, language.schema);
    ASSERT_TRUE(grammar.ok()) << language.schema << ": " << grammar.status();
    for (const auto& text : language.allowed) {
      EXPECT_TRUE(Accepts(**grammar, text)) << language.schema << ": " << text;
    }
    for (const auto& text : language.forbidden) {
      EXPECT_FALSE(Accepts(**grammar, text)) << language.schema << ": " << text;
    }
  }
}

struct Refusal {
  std::string schema;
  std::string place;
  std::string message;  // a part of it
};

void ExpectRefusals(const std::vector<Refusal>& refusals) {
  for (const auto& [schema, place, message] : refusals) {
    const std::string error(Model().Compile(kJsonSchema, schema).status().message());
    EXPECT_THAT(error, StartsWith("JSON schema: " + place + ": ")) << schema;
    EXPECT_THAT(error, HasSubstr(message)) << schema;
  }
}

std::string Formatted(const std::string& format) {
  return R"({"type": "string", "format": ")" + format + "\"}";
}

TEST(JsonSchemaTest, FollowsReferencesHoweverTheyAreWritten) {
  ExpectLanguages({
      {R"({"$ref": "#/$defs/a~1b~0c%20d", "$defs": {"a/b~c d": {"const": 1}}})", {"1"}, {"2"}},
      {R"({"items": {"$ref": "#x"}, "type": "array", "$defs": {"y": {"$anchor": "x", "const": 1}}})",
       {"[1, 1]"},
       {"[2]"}},
      {R"({"$id": "https://e.org/s", "$ref": "https://e.org/s#/$defs/a", "$defs": {"a": {"const": 1}}})",
       {"1"},
       {"2"}},
      {R"({"prefixItems": [{"const": 1}, {"$ref": "#/prefixItems/0"}], "type": "array",
           "items": false, "minItems": 2})",
       {"[1, 1]"},
       {"[1, 2]"}},
      {R"({"type": "array", "items": {"$ref": "#", "description": "the same again", "x-own": 1}})",
       {"[]", "[[], [[]]]"},
       {"[1]"}},
  });
}

TEST(JsonSchemaTest, ProvesBranchesOfOneOfApart) {
  const std::string kinds = R"({"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {
      "k": {"type": "object", "required": ["k"]},
      "a": {"allOf": [{"$ref": "#/$defs/k"}, {"properties": {"k": {"enum": ["x", "y"]}}}],
            "additionalProperties": false, "properties": {"k": true}},
      "b": {"type": "object", "properties": {"k": {"const": "z"}}, "required": ["k"],
            "additionalProperties": false}}})";
  ExpectLanguages({
      {kinds, {R"({"k": "x"})", R"({"k": "z"})"}, {R"({"k": "w"})"}},
      {R"({"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "exclusiveMinimum": 3}]})",
       {"3", "4", "-1"},
       {"3.5"}},
      {R"({"oneOf": [{"type": "string", "maxLength": 2}, {"type": "string", "minLength": 3}]})",
       {R"("ab")", R"("abc")"},
       {"1"}},
      {R"({"oneOf": [{"type": "array", "maxItems": 1}, {"type": "array", "minItems": 2},
                     {"type": ["null", "boolean"]}]})",
       {"[]", "[1, 2]", "null"},
       {"3"}},
      {R"({"oneOf": [{"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
                     {"type": "object", "properties": {"b": {}}, "required": ["b"],
                      "additionalProperties": false}]})",
       {R"({"a": null})", R"({"b": 1})"},
       {R"({"a": 1})"}},
      {R"({"type": "object", "properties": {"k": {"enum": ["a", "b"]}}, "required": ["k"],
           "oneOf": [{"properties": {"k": {"const": "a"}}},
                     {"properties": {"k": {"const": "b"}, "n": {"type": "null"}}, "required": ["n"]}]})",
       {R"({"k": "a"})", R"({"k": "b", "n": null})"},
       {R"({"k": "b"})"}},
      {R"({"oneOf": [{"const": 1}, {"const": "1"}, {"enum": [true, 2.5]}]})",
       {"1", R"("1")", "true", "2.5"},
       {"2"}},
  });
}

// Both branches would hold where both properties are there.
TEST(JsonSchemaTest, KeepsBranchesOfOneOfApartByWhatTheyRequire) {
  ExpectLanguages({{R"({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}},
                        "additionalProperties": false,
                        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]})",
                    {R"({"a": 1})", R"({"b": 2})"},
                    {R"({"a": 1, "b": 2})", "{}"}}});
}

TEST(JsonSchemaTest, RefusesBranchesThatMayOverlap) {
  ExpectRefusals({
      {R"({"oneOf": [{"type": "integer"}, {"type": "string"}, {"type": "number"}]})", "#/oneOf",
       "branches 0 and 2"},
      {R"({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]})", "#/oneOf", "0 and 1"},
      {R"({"oneOf": [{"type": "object", "required": ["a"]},
                     {"type": "object", "required": ["a", "b"]}]})",
       "#/oneOf", "0 and 1"},
      {R"({"oneOf": [{"const": 1}, {"const": 1.0}]})", "#/oneOf", "0 and 1"},
      {R"({"oneOf": [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}]})",
       "#/oneOf", "0 and 1"},
      {R"({"items": {"oneOf": [{"$ref": "#/items"}, {"type": "null"}]}})", "#/items/oneOf",
       "0 and 1"},
  });
  ExpectLanguages({{R"({"oneOf": [{"type": "integer"}, {"type": "number"}],
                        "x-guidance": {"coerce_one_of": true}})",
                    {"1"},
                    {"null"}}});
}

TEST(JsonSchemaTest, AFormatIsWhatEveryValidatorTakes) {
  ExpectLanguages({
      {Formatted("date"),
       {R"("2024-02-29")", R"("2000-02-29")", R"("1999-12-31")"},
       {R"("2023-02-29")", R"("1900-02-29")", R"("2024-04-31")", R"("0000-01-01")", R"("x")"}},
      {Formatted("date-time"),
       {R"("2024-02-29T23:59:59Z")", R"("2024-01-01T00:00:00.5+01:00")"},
       {R"("2023-02-29T00:00:00Z")", R"("2024-01-01T23:59:60Z")", R"("2024-01-01T00:00:00")"}},
      {Formatted("time"), {R"("10:00:00Z")"}, {R"("10:00:60Z")", R"("10:00:00")"}},
      {Formatted("json-pointer"), {R"("")", R"("/a~1b/0")"}, {R"("a")", R"("/~2")"}},
      {Formatted("relative-json-pointer"),
       {R"("0")", R"("1/a")", R"("2#")"},
       {R"("01")", R"("/a")"}},
      {Formatted("uri-reference"),
       {R"("../a?b#c")", R"("https://e.org/x")", R"("mailto:a@e.org")"},
       {R"("a b")", R"("//[")"}},
      {Formatted("uri-template"), {R"("/users/{id}/x")"}, {R"("/{")", R"("}")"}},
      {Formatted("idn-hostname"), {R"("a-b.example")"}, {R"("-a")", R"("a--b")"}},
      {Formatted("idn-email"), {R"("a@b.de")"}, {R"("a")"}},
      {Formatted("iri"), {R"("https://e.org/")"}, {R"("a b")"}},
      {R"({"type": "string", "format": "date", "pattern": "^2024-02"})",
       {R"("2024-02-29")"},
       {R"("2024-03-01")"}},
      {R"({"type": ["string", "null"], "format": "date"})", {"null", R"("2024-01-01")"}, {R"("")"}},
  });
}

TEST(JsonSchemaTest, UnknownFormatsAndKeywordsAreAnnotations) {
  ExpectLanguages({
      {Formatted("password"), {R"("x")"}, {"1"}},
      {R"({"type": "integer", "format": "int64", "x-unit": "m", "deprecated": true})",
       {"1"},
       {"x"}},
      {R"({"type": "integer", "format": "regex"})", {"1"}, {"x"}},
  });
  ExpectRefusals({{Formatted("regex"), "#/format", "regex is not supported"}});
}

TEST(JsonSchemaTest, KeywordsThatSayNothingAreNotRefused) {
  ExpectLanguages({{R"({"type": "array", "items": {"type": "integer", "not": false},
                        "uniqueItems": false, "if": {"maxItems": 0}, "unevaluatedItems": true,
                        "dependentRequired": {}})",
                    {"[1, 1]"},
                    {"1"}}});
}

TEST(JsonSchemaTest, TakesBoundsThatNoDoubleHolds) {
  ExpectLanguages({
      {R"({"type": "integer", "minimum": -9223372036854775808, "maximum": 9223372036854775807})",
       {"0", "-9000000000000000000", "9000000000000000000"},
       {"9000000000000000001", "9223372036854775808", "1.5"}},
      {R"({"type": "integer", "minimum": 0, "maximum": 18446744073709551615})", {"0"}, {"-1"}},
      // The nearest doubles are 9007199254740996 and -9007199254740996.
      {R"({"type": "integer", "minimum": -9007199254740995, "maximum": 9007199254740995})",
       {"9007199254740994", "-9007199254740994"},
       {"9007199254740996", "-9007199254740996"}},
      {R"({"type": "number", "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308})",
       {"0.5", "-12.25"},
       {"1e300"}},
  });
  ExpectRefusals({
      {R"({"type": "integer", "minimum": 9223372036854775807})", "#/minimum", "64 bits"},
      {R"({"enum": [1, [9007199254740993]]})", "#/enum", "9007199254740993 is no double"},
  });
}

// A model may go on with digits for ever.
TEST(JsonSchemaTest, IntegersAreOf64Bits) {
  ExpectLanguages({
      {R"({"type": "integer"})", {"9000000000000000000", "-1"}, {"10000000000000000000", "1.0"}},
      {R"({"type": ["integer", "null"], "minimum": 3})", {"null", "3"}, {"10000000000000000000"}},
      {R"({"type": "integer", "exclusiveMaximum": 3})", {"2"}, {"3", "-10000000000000000000"}},
      {R"({"type": "number"})", {"10000000000000000000", "1e30"}, {}},
  });
}

// A name that is spelled with an escape is still the name of the property.
TEST(JsonSchemaTest, APropertyHasOneSpelling) {
  ExpectLanguages({{R"({"type": "object", "properties": {"a": {"type": "integer"}}})",
                    {R"({"a": 1})", R"({"b": "x"})"},
                    {R"({"a": "x"})", R"({"\u0061": "x"})"}}});
}

TEST(JsonSchemaTest, AnErrorNamesItsPlace) {
  ExpectRefusals({
      {R"({"properties": {"a/b": {"items": {"type": "int"}}}})", "#/properties/a~1b/items/type",
       "\"int\" is no type"},
      {R"({"properties": {"a": {"pattern": "("}}})", "#/properties/a", "unclosed group"},
      {R"({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}}})",
       "#/$defs/a/items/$ref", "'#/$defs/b' is not in the schema"},
      {R"({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"type": "integer",
          "minimum": 1, "maximum": 4, "multipleOf": 5}, "minItems": 1}}})",
       "#/$defs/a/items", "multiple"},
      {R"({"anyOf": [{"type": "null"}, {"minLength": 2, "maxLength": 1}]})", "#/anyOf/1",
       "minLength (2) is greater than maxLength (1)"},
      {R"({"properties": {"a": 3}})", "#/properties/a", "a schema is"},
      {R"({"items": [3]})", "#/items/0", "a schema is"},
      {R"({"additionalProperties": {"enum": []}})", "#/additionalProperties/enum", "not empty"},
      {R"({"multipleOf": 0})", "#/multipleOf", "greater than 0"},
      {R"({"minItems": -1})", "#/minItems", "not negative"},
      {R"({"required": [1]})", "#/required", "array of strings"},
      {R"({"x-guidance": {"lenience": true}})", "#/x-guidance", "lenience"},
      {R"({"$ref": "#"})", "#", "no output"},
  });
}

TEST(JsonSchemaTest, SchemasInLarkAreReadInTheSameWay) {
  const auto grammar =
      Model().Compile(kLark,
                      "start: \"%json {\" x /[\"\\/]#/ // %json {\n# %json {\nx: %json "
                      R"({"oneOf": [{"$ref": "#x"}, {"type": "null"}],)"
                      R"( "$defs": {"x": {"$anchor": "x", "type": "array", "maxItems": 1}}})"
                      "\n");
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  EXPECT_TRUE(Accepts(**grammar, "%json {null\"#"));
  EXPECT_TRUE(Accepts(**grammar, "%json {[1]/#"));
  EXPECT_FALSE(Accepts(**grammar, "%json {[1, 2]/#"));
  const auto refused =
      Model().Compile(kLark, "start: x\nx: \"a\" %json {\"items\": {\"not\": {}}}");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("at 2(8): #/items/not: "));
}

}  // namespace
}  // namespace kvasir::grammar
