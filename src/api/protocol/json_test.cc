#include "api/protocol/json.h"

#include <gtest/gtest.h>

#include "api/protocol/error.h"

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

TEST(Errors, BecomeOpenAiErrorObjects) {
  const ErrorObject field = ToErrorObject(FieldError("top_p", "is odd"));
  EXPECT_EQ(field.http_status, 400);
  EXPECT_EQ(
      ErrorJson(field),
      R"({"error":{"message":"top_p: is odd","type":"invalid_request_error","param":"top_p","code":null}})");

  Status full = absl::ResourceExhaustedError("full");
  full.SetPayload("kvasir/retry-after", absl::Cord("1.25"));
  const HttpResponse response = ErrorResponse(full);
  EXPECT_EQ(response.status, 429);
  ASSERT_EQ(response.headers.size(), 1u);
  EXPECT_EQ(response.headers[0].second, "2");

  EXPECT_EQ(ToErrorObject(absl::InternalError("x")).http_status, 500);
  EXPECT_EQ(ToErrorObject(absl::UnavailableError("x")).http_status, 503);
  EXPECT_EQ(ToErrorObject(absl::DeadlineExceededError("x")).http_status, 408);
}

TEST(Errors, TakeTheFieldFromACoreMessage) {
  EXPECT_EQ(ToErrorObject(FieldFromMessage(absl::InvalidArgumentError("top_k: bad"))).param,
            "top_k");
  EXPECT_EQ(ToErrorObject(FieldFromMessage(absl::InvalidArgumentError("It is: bad"))).param, "");
  EXPECT_EQ(ToErrorObject(FieldFromMessage(absl::UnavailableError("queue: full"))).param, "");
}

}  // namespace
}  // namespace kvasir::api
