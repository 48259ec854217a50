#include "runtime/expert_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace kvasir::runtime {
namespace {

// Random choices: every row is somebody's, an expert's are together and in order of tokens.
TEST(ExpertRowsTest, SortsByExpertAndThenByToken) {
  std::mt19937 random(3);
  ExpertRows rows;
  for (int round = 0; round < 50; ++round) {
    const int32_t experts = 1 + static_cast<int32_t>(random() % 9);
    const int32_t used = 1 + static_cast<int32_t>(random() % experts);
    const int64_t tokens = random() % 20;
    const int64_t stride = 2 * used + 3;
    std::vector<float> routing(tokens * stride);
    std::vector<int32_t> all(experts);
    for (int32_t e = 0; e < experts; ++e) all[e] = e;
    for (int64_t t = 0; t < tokens; ++t) {
      std::shuffle(all.begin(), all.end(), random);
      for (int32_t r = 0; r < used; ++r) routing[t * stride + 2 * r] = static_cast<float>(all[r]);
    }
    rows.Set(routing.data(), stride, tokens, used, experts);
    EXPECT_EQ(rows.begin(0), 0);
    EXPECT_EQ(rows.begin(experts), tokens * used);
    std::set<int64_t> seen;
    std::vector<int64_t> last(experts, -1);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int32_t r = 0; r < used; ++r) {
        const int32_t expert = static_cast<int32_t>(routing[t * stride + 2 * r]);
        const int64_t row = rows.row(t, r);
        EXPECT_TRUE(seen.insert(row).second);
        EXPECT_TRUE(rows.begin(expert) <= row && row < rows.begin(expert + 1));
        EXPECT_GT(row, last[expert]);
        last[expert] = row;
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::runtime
