#include "api/protocol/json.h"

#include <gtest/gtest.h>

namespace kvasir::api {
namespace {

std::string Nested(size_t depth) {
  return R"({"a":)" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
}

TEST(ParseJsonObject, RefusesWhatIsNoObject) {
  for (const char* body :
       {"", "null", "[]", "3", "\"text\"", "{", "{\"a\":}", "{\"a\":1}x", "{'a':1}", "{\"a\":NaN}",
        "{\"a\":Infinity}", "{\"a\":1e999}", "{\"a\":01}", "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\xff\"}", "\xef\xbb\xbf"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseJsonObject(body).status())) << body;
  }
}

TEST(ParseJsonObject, OfDuplicateKeysTheLastCounts) {
  const auto json = ParseJsonObject(R"({"a":1,"b":2,"a":3})");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["a"], 3);
  EXPECT_EQ(json->size(), 2u);
}

TEST(ParseJsonObject, BoundsNesting) {
  EXPECT_TRUE(ParseJsonObject(Nested(64)).ok());
  EXPECT_FALSE(ParseJsonObject(Nested(65)).ok());
  EXPECT_FALSE(ParseJsonObject(Nested(1000000)).ok());
  EXPECT_TRUE(ParseJsonObject(R"({"a":")" + std::string(1000, '[') + "\"}").ok());
}

TEST(ParseJsonObject, BoundsTheCostOfObjects) {
  std::string body = "{";
  for (int i = 0; i < 200000; ++i) body += absl::StrCat("\"k", i, "\":0,");
  body += "\"end\":0}";
  EXPECT_FALSE(ParseJsonObject(body).ok());
}

TEST(ParseJsonObject, BoundsTheNumberOfValues) {
  std::string body = "{\"a\":[0";
  for (int i = 0; i < 1 << 21; ++i) body += ",0";
  EXPECT_FALSE(ParseJsonObject(body + "]}").ok());
}

}  // namespace
}  // namespace kvasir::api
