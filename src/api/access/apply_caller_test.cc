#include "api/access/apply_caller.h"

#include <gtest/gtest.h>

#include "api/access/caller.h"

namespace kvasir::api {
namespace {

HttpRequest From(Caller caller) {
  HttpRequest request;
  request.caller = std::make_shared<Caller>(std::move(caller));
  return request;
}

TEST(ApplyCallerTest, HoldsThePriorityToTheKeys) {
  const auto priority = [](std::optional<int32_t> keys, std::optional<int32_t> asked) {
    GenerationOptions options{.priority = asked};
    ApplyCaller(From({.priority = keys}), &options);
    return options.priority.value_or(0);
  };
  EXPECT_EQ(priority(std::nullopt, -7), -7);
  EXPECT_EQ(priority(std::nullopt, std::nullopt), 0);
  EXPECT_EQ(priority(5, std::nullopt), 5);
  EXPECT_EQ(priority(5, 0), 5);
  EXPECT_EQ(priority(5, 9), 9);
  EXPECT_EQ(priority(-5, std::nullopt), -5);
  EXPECT_EQ(priority(-5, 0), 0);
  EXPECT_EQ(priority(-5, -9), -5);
}

TEST(ApplyCallerTest, KeepsSaltsApart) {
  const auto salt = [](const std::string& keys, const std::string& requests) {
    GenerationOptions options{.cache_salt = requests};
    ApplyCaller(From({.cache_salt = keys}), &options);
    return options.cache_salt;
  };
  EXPECT_EQ(salt("", "x"), "x");
  EXPECT_EQ(salt("a", "x"), salt("a", "x"));
  EXPECT_NE(salt("a", "x"), salt("b", "x"));
  EXPECT_NE(salt("a", "x"), salt("a", "y"));
  EXPECT_NE(salt("a", ""), salt("", "a"));
  EXPECT_NE(salt("a", "bx"), salt("ab", "x"));
  EXPECT_NE(salt("1", "1:x"), salt("11", ":x"));
  EXPECT_NE(salt("a", ""), "");
  EXPECT_EQ(salt("a", "").front(), '\xfe');  // which no JSON string begins with
}

TEST(ApplyCallerTest, ReservesPromptsAndWhatTheClientBounds) {
  const auto budget = std::make_shared<Budget>("k", Limits{.tokens_per_minute = 100});
  Request request{.prompt_ids = std::vector<TokenId>(10)};
  request.sampling.n = 2;
  request.sampling.max_tokens = 20;
  const auto left = [&](std::optional<int32_t> max_tokens) {
    HttpRequest http;
    http.visit = *Budget::Admit(budget, TimePoint());
    EXPECT_TRUE(ReserveTokens(http, {std::make_shared<Request>(request)},
                              {.max_tokens = max_tokens}, TimePoint())
                    .ok());
    const std::string remaining = budget->Headers(TimePoint())[1].second;
    http.visit->End(0, TimePoint());
    return remaining;
  };
  EXPECT_EQ(left(20), "50");
  EXPECT_EQ(left(std::nullopt), "90");
}

}  // namespace
}  // namespace kvasir::api
