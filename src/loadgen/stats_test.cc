#include "loadgen/stats.h"

#include <gtest/gtest.h>

namespace kvasir::loadgen {
namespace {

TEST(PercentileTest, InterpolatesAsNumPyDoes) {
  const std::vector<double> values = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(Percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(Percentile(values, 50), 3);
  EXPECT_DOUBLE_EQ(Percentile(values, 90), 6.8);
  EXPECT_DOUBLE_EQ(Percentile(values, 100), 8);
  EXPECT_DOUBLE_EQ(Percentile({5}, 99), 5);
  EXPECT_DOUBLE_EQ(Percentile({}, 50), 0);
}

TEST(SummarizeTest, TakesValuesInAnyOrder) {
  const Distribution d = Summarize({4, 1, 3, 2});
  EXPECT_EQ(d.count, 4u);
  EXPECT_DOUBLE_EQ(d.mean, 2.5);
  EXPECT_DOUBLE_EQ(d.p50, 2.5);
  EXPECT_DOUBLE_EQ(d.max, 4);
  EXPECT_EQ(Summarize({}).count, 0u);
}

}  // namespace
}  // namespace kvasir::loadgen
