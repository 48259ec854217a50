#include "loadgen/workload.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace kvasir::loadgen {
namespace {

TEST(WorkloadTest, IdsHaveTheExactLengthAndRange) {
  const Workload workload({.turns = 3,
                           .input_length = 40,
                           .output_length = 7,
                           .shared_prefix_length = 16,
                           .first_token_id = 5,
                           .last_token_id = 9});
  const Conversation conversation = workload.Draw(0);
  EXPECT_EQ(conversation.prefix.ids.size(), 16u);
  ASSERT_EQ(conversation.turns.size(), 3u);
  for (const Turn& turn : conversation.turns) {
    EXPECT_EQ(turn.input.ids.size(), 40u);
    EXPECT_EQ(turn.output_length, 7);
    EXPECT_TRUE(std::all_of(turn.input.ids.begin(), turn.input.ids.end(),
                            [](TokenId id) { return id >= 5 && id <= 9; }));
  }
}

TEST(WorkloadTest, IsAFunctionOfSeedAndIndex) {
  const Workload workload({.seed = 1});
  EXPECT_EQ(workload.Draw(3).turns[0].input.ids, workload.Draw(3).turns[0].input.ids);
  EXPECT_NE(workload.Draw(3).turns[0].input.ids, workload.Draw(4).turns[0].input.ids);
  EXPECT_NE(workload.Draw(3).turns[0].input.ids, workload.Draw(-3).turns[0].input.ids);
  EXPECT_NE(workload.Draw(3).turns[0].input.ids, Workload({.seed = 2}).Draw(3).turns[0].input.ids);
}

TEST(WorkloadTest, GroupsShareTheirPrefix) {
  const Workload workload({.shared_prefix_length = 8, .shared_prefix_groups = 2});
  EXPECT_EQ(workload.Draw(0).prefix.ids, workload.Draw(2).prefix.ids);
  EXPECT_NE(workload.Draw(0).prefix.ids, workload.Draw(1).prefix.ids);
}

TEST(WorkloadTest, LengthsSpreadEvenly) {
  const Workload workload({.input_length = 100, .length_spread = 0.5});
  size_t least = 1000, most = 0, sum = 0;
  for (int i = 0; i < 1000; ++i) {
    const size_t length = workload.Draw(i).turns[0].input.ids.size();
    least = std::min(least, length);
    most = std::max(most, length);
    sum += length;
  }
  EXPECT_GE(least, 50u);
  EXPECT_LE(least, 53u);
  EXPECT_LE(most, 150u);
  EXPECT_GE(most, 147u);
  EXPECT_NEAR(static_cast<double>(sum) / 1000, 100, 3);
}

TEST(WorkloadTest, WordsAreCounted) {
  const Workload workload({.style = PromptStyle::kChat, .input_length = 12});
  const Content input = workload.Draw(0).turns[0].input;
  EXPECT_TRUE(input.ids.empty());
  EXPECT_EQ(std::count(input.words.begin(), input.words.end(), ' '), 11);
}

TEST(WorkloadTest, GapsAreExponential) {
  const Workload workload({.rate = 4});
  double sum = 0;
  int above_mean = 0;
  constexpr int kCount = 20000;
  for (int i = 0; i < kCount; ++i) {
    const double gap = workload.DrawGap(i);
    ASSERT_GE(gap, 0);
    sum += gap;
    above_mean += gap > 0.25;
  }
  EXPECT_NEAR(sum / kCount, 0.25, 0.01);
  EXPECT_NEAR(static_cast<double>(above_mean) / kCount, 0.3679, 0.015);  // 1 / e
}

}  // namespace
}  // namespace kvasir::loadgen
