#include "api/access/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "api/protocol/error.h"

namespace kvasir::api {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

TimePoint At(double seconds) { return TimePoint(FromSeconds(seconds)); }

class BudgetTest : public ::testing::Test {
 protected:
  void Limit(Limits limits) { budget_ = std::make_shared<Budget>("k", limits); }

  StatusOr<std::shared_ptr<Visit>> Admit(double at) { return Budget::Admit(budget_, At(at)); }

  std::string Header(const std::string& name, double at) {
    for (const auto& [key, value] : budget_->Headers(At(at))) {
      if (key == name) return value;
    }
    return "";
  }

  std::shared_ptr<Budget> budget_;
};

TEST_F(BudgetTest, LimitsRequests) {
  Limit({.requests_per_minute = 2});
  EXPECT_TRUE(Admit(0).ok());
  EXPECT_EQ(Header("x-ratelimit-limit-requests", 0), "2");
  EXPECT_EQ(Header("x-ratelimit-remaining-requests", 0), "1");
  EXPECT_EQ(Header("x-ratelimit-reset-requests", 0), "30s");
  EXPECT_TRUE(Admit(0).ok());
  const ErrorObject error = ToErrorObject(Admit(0.5).status());
  EXPECT_EQ(error.http_status, 429);
  EXPECT_EQ(error.code, "rate_limit_exceeded");
  EXPECT_EQ(error.retry_after, "30");
  EXPECT_THAT(error.message, HasSubstr("the key 'k' may send 2 requests a minute"));
  EXPECT_TRUE(Admit(30).ok());
  EXPECT_EQ(Header("x-ratelimit-limit-tokens", 0), "");
}

TEST_F(BudgetTest, LimitsRequestsAtATime) {
  Limit({.max_concurrent = 1});
  const auto first = *Admit(0);
  EXPECT_EQ(ToErrorObject(Admit(0).status()).retry_after, "1");
  first->End(5, At(1));
  first->End(5, At(1));
  const auto second = Admit(1);
  EXPECT_TRUE(second.ok());
  EXPECT_FALSE(Admit(1).ok());
  EXPECT_THAT(budget_->Headers(At(0)), IsEmpty());
}

TEST_F(BudgetTest, ReservesTokensAndGivesBackTheRest) {
  Limit({.tokens_per_minute = 60});
  const auto first = *Admit(0);
  EXPECT_TRUE(first->Reserve(40, At(0)).ok());
  EXPECT_EQ(Header("x-ratelimit-remaining-tokens", 0), "20");
  const auto second = *Admit(0);
  const ErrorObject error = ToErrorObject(second->Reserve(30, At(0)));
  EXPECT_EQ(error.http_status, 429);
  EXPECT_EQ(error.retry_after, "10");
  first->End(15, At(0));
  EXPECT_EQ(Header("x-ratelimit-remaining-tokens", 0), "45");
  EXPECT_TRUE(second->Reserve(30, At(0)).ok());
  second->End(0, At(0));
  EXPECT_EQ(Header("x-ratelimit-remaining-tokens", 0), "45");
  EXPECT_EQ(Header("x-ratelimit-reset-tokens", 0), "15s");
}

TEST_F(BudgetTest, WaitsUntilADebtIsPaid) {
  Limit({.tokens_per_minute = 60});
  const auto first = *Admit(0);
  EXPECT_TRUE(first->Reserve(10, At(0)).ok());
  first->End(160, At(0));
  EXPECT_EQ(Header("x-ratelimit-remaining-tokens", 0), "0");
  EXPECT_EQ(Header("x-ratelimit-reset-tokens", 0), "2m40s");
  EXPECT_EQ(ToErrorObject(Admit(0).status()).retry_after, "101");
  EXPECT_TRUE(Admit(101).ok());
}

TEST_F(BudgetTest, SaysWhatCanNeverBe) {
  Limit({.tokens_per_minute = 60});
  const ErrorObject error = ToErrorObject((*Admit(0))->Reserve(61, At(0)));
  EXPECT_EQ(error.http_status, 400);
  EXPECT_EQ(error.code, "request_exceeds_rate_limit");
}

TEST_F(BudgetTest, TakesNothingForARequestThatHasEnded) {
  Limit({.tokens_per_minute = 60});
  const auto visit = *Admit(0);
  visit->End(0, At(0));
  EXPECT_TRUE(visit->Reserve(50, At(0)).ok());
  EXPECT_EQ(Header("x-ratelimit-remaining-tokens", 0), "60");
}

// Requests that state their bound: over any minute at most two budgets, and nothing is lost.
TEST_F(BudgetTest, NeverLetsMoreBeUsedThanItAllows) {
  std::mt19937 random(3);
  Limit({.requests_per_minute = 600, .tokens_per_minute = 1000, .max_concurrent = 8});
  std::vector<std::pair<std::shared_ptr<Visit>, int64_t>> under_way;
  std::multimap<double, int64_t> used;  // at the time of submission
  double now = 0;
  for (int i = 0; i < 5000; ++i) {
    now += static_cast<double>(random() % 1000) / 5000;
    const int64_t tokens = 1 + random() % 200;
    if (auto visit = Admit(now); visit.ok()) {
      if ((*visit)->Reserve(tokens, At(now)).ok()) {
        under_way.emplace_back(*visit, tokens);
        used.emplace(now, tokens);
      } else {
        (*visit)->End(0, At(now));
      }
    }
    ASSERT_LE(under_way.size(), 8u);
    while (!under_way.empty() && random() % 2 == 0) {
      under_way.back().first->End(under_way.back().second, At(now));
      under_way.pop_back();
    }
  }
  EXPECT_GT(used.size(), 100u);
  for (auto first = used.begin(); first != used.end(); ++first) {
    int64_t sum = 0;
    for (auto last = first; last != used.end(); ++last) {
      sum += last->second;
      ASSERT_LE(sum, 1000 + 1000 / 60.0 * (last->first - first->first) + 1e-3);
    }
  }
  for (const auto& [visit, tokens] : under_way) visit->End(tokens, At(now));
  EXPECT_EQ(Header("x-ratelimit-remaining-tokens", now + 60), "1000");
}

TEST(SpellDurationTest, DoesItAsTheOpenAiApiDoes) {
  EXPECT_EQ(SpellDuration(Duration::zero()), "0ms");
  EXPECT_EQ(SpellDuration(std::chrono::microseconds(19001)), "20ms");
  EXPECT_EQ(SpellDuration(std::chrono::milliseconds(8640)), "8.64s");
  EXPECT_EQ(SpellDuration(std::chrono::seconds(1)), "1s");
  EXPECT_EQ(SpellDuration(std::chrono::seconds(360)), "6m0s");
  EXPECT_EQ(SpellDuration(std::chrono::milliseconds(61500)), "1m1.5s");
}

}  // namespace
}  // namespace kvasir::api
