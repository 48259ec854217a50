#include "api/access/token_bucket.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace kvasir::api {
namespace {

TimePoint At(double seconds) { return TimePoint(FromSeconds(seconds)); }

TEST(TokenBucketTest, GivesItsCapacityAtOnceAndThenItsRate) {
  TokenBucket bucket(3, 0.5);
  EXPECT_TRUE(bucket.Take(2, At(0)));
  EXPECT_TRUE(bucket.Take(1, At(0)));
  EXPECT_FALSE(bucket.Take(1, At(0)));
  EXPECT_EQ(bucket.Until(1, At(0)), FromSeconds(2));
  EXPECT_FALSE(bucket.Take(1, At(1.9)));
  EXPECT_TRUE(bucket.Take(1, At(2)));
  EXPECT_EQ(bucket.Level(At(1000)), 3);
}

TEST(TokenBucketTest, TakesAllOrNothing) {
  TokenBucket bucket(3, 1);
  EXPECT_FALSE(bucket.Take(4, At(0)));
  EXPECT_EQ(bucket.Level(At(0)), 3);
}

TEST(TokenBucketTest, GoesIntoDebtForWhatHasBeenUsed) {
  TokenBucket bucket(10, 1);
  bucket.Settle(25, At(0));
  EXPECT_EQ(bucket.Level(At(5)), -10);
  EXPECT_EQ(bucket.Until(1, At(5)), FromSeconds(11));
  EXPECT_FALSE(bucket.Take(1, At(15)));
  EXPECT_TRUE(bucket.Take(1, At(16)));
}

TEST(TokenBucketTest, TakesBackNoMoreThanItHolds) {
  TokenBucket bucket(10, 1);
  EXPECT_TRUE(bucket.Take(4, At(0)));
  bucket.Settle(-3, At(0));
  EXPECT_EQ(bucket.Level(At(0)), 9);
  bucket.Settle(-3, At(0));
  EXPECT_EQ(bucket.Level(At(0)), 10);
}

TEST(TokenBucketTest, IsNotFilledByTimeThatGoesBack) {
  TokenBucket bucket(2, 1);
  EXPECT_TRUE(bucket.Take(2, At(10)));
  EXPECT_EQ(bucket.Level(At(0)), 0);
  EXPECT_FALSE(bucket.Take(1, At(5)));
  EXPECT_FALSE(bucket.Take(1, At(10.5)));
  EXPECT_TRUE(bucket.Take(1, At(11)));
}

TEST(TokenBucketTest, WaitingAsLongAsItSaysIsEnoughAndNotTooLong) {
  std::mt19937 random(1);
  for (int i = 0; i < 1000; ++i) {
    const double capacity = 1 + random() % 100000;
    TokenBucket bucket(capacity, capacity / 60);
    bucket.Settle(random() % 200000, At(0));
    const double amount = 1 + random() % static_cast<int>(capacity);
    const Duration wait = bucket.Until(amount, At(0));
    if (wait > Duration::zero()) {
      TokenBucket early = bucket;
      EXPECT_FALSE(early.Take(amount, At(0) + wait * 99 / 100));
    }
    EXPECT_TRUE(bucket.Take(amount, At(0) + wait));
  }
}

// Over any window, whatever was asked for and when.
TEST(TokenBucketTest, NeverLetsMorePassThanCapacityAndRateAllow) {
  struct Taken {
    double at;
    double amount;
  };
  std::mt19937 random(2);
  std::uniform_real_distribution<double> unit(0, 1);
  for (int round = 0; round < 50; ++round) {
    const double capacity = 1 + unit(random) * 50;
    const double rate = 0.01 + unit(random) * 10;
    TokenBucket bucket(capacity, rate);
    std::vector<Taken> taken;
    double now = 0;
    for (int i = 0; i < 300; ++i) {
      now += unit(random) < 0.5 ? 0 : unit(random) * capacity / rate * 0.2;
      const double amount = unit(random) * capacity * 0.5;
      if (bucket.Take(amount, At(now))) taken.push_back({now, amount});
    }
    ASSERT_FALSE(taken.empty());
    for (size_t first = 0; first < taken.size(); ++first) {
      double sum = 0;
      for (size_t last = first; last < taken.size(); ++last) {
        sum += taken[last].amount;
        ASSERT_LE(sum, capacity + rate * (taken[last].at - taken[first].at) + 1e-3);
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::api
