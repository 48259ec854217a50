#include "api/protocol/fields.h"

#include <gtest/gtest.h>

#include "api/protocol/error.h"

namespace kvasir::api {
namespace {

TEST(FieldReader, KeepsTheFirstErrorAndNamesItsPath) {
  const Json json = Json::parse(R"({"n":"many","flag":3,"inner":{"x":1.5}})");
  FieldReader reader(json, "outer");
  int32_t n = 7;
  bool flag = false;
  reader.Read("n", &n);
  reader.Read("flag", &flag);
  EXPECT_EQ(n, 7);
  EXPECT_EQ(reader.status().message(), "outer.n: must be an integer, not a string");
  EXPECT_EQ(ToErrorObject(reader.status()).param, "outer.n");
}

TEST(FieldReader, ReadsIntegersOnlyWhereTheyFit) {
  const auto read = [](const char* value) {
    const Json json = Json::parse(std::string("{\"v\":") + value + "}");
    FieldReader reader(json, "");
    int32_t out = -5;
    reader.Read("v", &out);
    return reader.status().ok() ? std::to_string(out) : "error";
  };
  EXPECT_EQ(read("3"), "3");
  EXPECT_EQ(read("3.0"), "3");
  EXPECT_EQ(read("-3"), "-3");
  EXPECT_EQ(read("null"), "-5");
  for (const char* bad : {"3.5", "2147483648", "-2147483649", "1e300", "18446744073709551615",
                          "123456789012345678901234567890", "true", "\"3\"", "[3]", "{}"}) {
    EXPECT_EQ(read(bad), "error") << bad;
  }
}

TEST(FieldReader, ChecksLimits) {
  const auto error = [](const char* value, Range limits) {
    const Json json = Json::parse(std::string("{\"v\":") + value + "}");
    FieldReader reader(json, "");
    float out = 0;
    reader.Read("v", &out, limits);
    return std::string(reader.status().message());
  };
  EXPECT_EQ(error("1", {0, 1}), "");
  EXPECT_EQ(error("1.5", {0, 1}), "v: must be in [0, 1]");
  EXPECT_EQ(error("-1", {.min = 0}), "v: must be at least 0");
  EXPECT_EQ(error("3", {.max = 2}), "v: must be at most 2");
}

TEST(FieldReader, ReadsObjectsAndArraysOfThem) {
  const Json json = Json::parse(R"({"list":[{"x":1},{"x":"a"}],"one":{"y":true}})");
  FieldReader reader(json, "");
  int32_t sum = 0;
  bool y = false;
  EXPECT_TRUE(reader.ReadObject("one", [&](FieldReader& one) { one.Read("y", &y); }));
  EXPECT_TRUE(y);
  EXPECT_FALSE(reader.ReadObject("two", [&](FieldReader&) { ADD_FAILURE(); }));
  reader.ReadObjects("list", 2, [&](FieldReader& item, size_t) {
    int32_t x = 0;
    item.Read("x", &x);
    sum += x;
  });
  EXPECT_EQ(sum, 1);
  EXPECT_EQ(ToErrorObject(reader.status()).param, "list[1].x");

  FieldReader bounded(json, "");
  bounded.ReadObjects("list", 1, [](FieldReader&, size_t) {});
  EXPECT_EQ(ToErrorObject(bounded.status()).param, "list");
}

struct Fruit {
  int32_t weight = 0;
  bool ripe = false;
  std::vector<std::string> names;
};

void ReadFruit(FieldReader& reader, Fruit* fruit) {
  reader.Require("weight");
  reader.Read("weight", &fruit->weight, {1, 9});
  reader.ReadWord("state", {{"ripe", true}, {"unripe", false}}, &fruit->ripe);
  reader.ReadStrings("names", &fruit->names);
  reader.RequireItems("names");
  reader.ReadObjects("seeds", 5, [](FieldReader& seed, size_t) {
    seed.Require("size");
    float size = 0;
    seed.Read("size", &size);
  });
}

TEST(FieldReader, OfABodyReadsAndDescribesTheSame) {
  const auto fruit =
      ReadBody(Json::parse(R"({"weight":3,"state":"ripe","names":"kiwi"})"), &ReadFruit);
  ASSERT_TRUE(fruit.ok()) << fruit.status();
  EXPECT_EQ(fruit->weight, 3);
  EXPECT_TRUE(fruit->ripe);
  EXPECT_EQ(fruit->names, std::vector<std::string>{"kiwi"});
  const auto error = [](const char* body) {
    return std::string(ReadBody(Json::parse(body), &ReadFruit).status().message());
  };
  EXPECT_EQ(error("{}"), "weight: is required");
  EXPECT_EQ(error(R"({"weight":1,"state":"rotten"})"), "state: must be one of ripe, unripe");
  EXPECT_EQ(error(R"({"weight":1,"names":[]})"), "names: must not be empty");
  EXPECT_EQ(error(R"({"weight":1,"names":""})"), "names: must not be empty");
  EXPECT_EQ(error(R"({"weight":1,"seeds":[{}]})"), "seeds[0].size: is required");

  EXPECT_EQ(DescribeBody(&ReadFruit), Json::parse(R"({
    "type": "object",
    "properties": {
      "weight": {"type": "integer", "minimum": 1, "maximum": 9},
      "state": {"enum": ["ripe", "unripe", null]},
      "names": {"anyOf": [{"type": "string", "minLength": 1},
                          {"type": "array", "items": {"type": "string"}, "minItems": 1},
                          {"type": "null"}]},
      "seeds": {"type": ["array", "null"],
                "items": {"type": "object",
                          "properties": {"size": {"type": "number"}},
                          "required": ["size"]},
                "maxItems": 5}},
    "required": ["weight"]})"));
}

}  // namespace
}  // namespace kvasir::api
