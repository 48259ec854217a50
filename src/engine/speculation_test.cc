#include <gtest/gtest.h>

#include <random>

#include "engine/draft_policy.h"
#include "engine/prompt_lookup.h"

namespace kvasir::engine {
namespace {

TEST(PromptLookupTest, ProposesWhatFollowedTheLastOccurrence) {
  PromptLookup lookup;
  const std::vector<TokenId> tokens = {1, 2, 3, 7, 8, 1, 2, 3, 9, 10, 1, 2, 3};
  EXPECT_EQ(lookup.Propose(tokens, 3), (std::vector<TokenId>{9, 10, 1}));
  EXPECT_TRUE(lookup.Propose(tokens, 0).empty());
}

TEST(PromptLookupTest, ProposesNothingWithoutAnEarlierOccurrence) {
  PromptLookup lookup;
  EXPECT_TRUE(lookup.Propose({}, 4).empty());
  EXPECT_TRUE(lookup.Propose({1, 2, 3}, 4).empty());
  EXPECT_TRUE(lookup.Propose({1, 2, 3, 4}, 4).empty());
}

TEST(PromptLookupTest, SeenInPiecesOrAtOnceIsTheSame) {
  std::mt19937 random(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<TokenId> tokens;
    PromptLookup pieces;
    for (int i = 0; i < 60; ++i) {
      tokens.push_back(static_cast<TokenId>(random() % 4));
      if (random() % 2) continue;
      EXPECT_EQ(pieces.Propose(tokens, 5), PromptLookup().Propose(tokens, 5));
    }
  }
}

TEST(DraftPolicyTest, TriesWhatPays) {
  const DraftCost cheap{.step = 0.007, .draft = 0.001};
  EXPECT_EQ(BestDrafts(0.98, 8, cheap), 8);
  EXPECT_EQ(BestDrafts(0.05, 8, cheap), 0);
  EXPECT_GT(BestDrafts(0.5, 8, cheap), 0);
  EXPECT_LT(BestDrafts(0.5, 8, cheap), 4);
  EXPECT_EQ(BestDrafts(0.9, 8, {.step = 0.007, .draft = 0.007}), 0);
  // What one sequence gains is little beside what all others wait.
  EXPECT_EQ(BestDrafts(0.5, 8, {.step = 0.007, .draft = 0.001, .tokens = 16}), 0);
}

TEST(DraftPolicyTest, TheRecordFollowsWhatHappens) {
  DraftRecord record;
  const double fresh = record.chance();
  for (int i = 0; i < 10; ++i) record.Observe(4, 4);
  EXPECT_GT(record.chance(), 0.9);
  for (int i = 0; i < 20; ++i) record.Observe(4, 0);
  EXPECT_LT(record.chance(), 0.15);
  EXPECT_EQ(BestDrafts(record.chance(), 8, {.step = 0.007, .draft = 0.001}), 0);
  EXPECT_LT(record.chance(), fresh);
  EXPECT_FALSE(record.ShouldProbe());
  for (int i = 0; i < 48; ++i) record.Skip();
  EXPECT_TRUE(record.ShouldProbe());
}

}  // namespace
}  // namespace kvasir::engine
