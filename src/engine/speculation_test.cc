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

// However the drafts turn out, they lose no more than two steps and a hundredth of the time.
TEST(DraftPolicyTest, WhatDraftsMayLoseIsBounded) {
  constexpr double kStep = 0.06, kTry = 0.023;
  DraftRecord record;
  double lost = 0;
  for (int step = 0; step < 200; ++step) {
    record.Pass(kStep);
    if (record.owes()) continue;
    record.Spend(kTry);
    lost += kTry;
  }
  EXPECT_LE(lost, 2 * kStep + 0.01 * 200 * kStep + kTry);
  EXPECT_GE(lost, 0.01 * 200 * kStep);
  // What they win is credit, within bounds.
  const DraftCost check{.step = kStep, .draft = 0.01};
  for (int i = 0; i < 50; ++i) {
    record.Pass(kStep);
    record.Earn(SavedBy(3, check));
  }
  record.Spend(8 * kStep);
  EXPECT_FALSE(record.owes());
  record.Spend(4 * kStep);
  EXPECT_TRUE(record.owes());
}

// A smaller model that saves nothing reads for a small share of the time; one that saves much reads
// all there is.
TEST(DraftPolicyTest, ReadingIsPaidByWhatItBroughtBefore) {
  constexpr double kStep = 0.06, kPrice = 1.2;
  for (const double saves : {0.0, 2.0}) {
    ReadingAccount account;
    int read = 0;
    constexpr int kSequences = 100, kSteps = 200;
    for (int sequence = 0; sequence < kSequences; ++sequence) {
      for (int step = 0; step < kSteps; ++step) account.Pass(kStep);
      if (!account.Affords(kPrice)) continue;
      account.Spend(kPrice);
      account.Earn(saves);
      ++read;
    }
    if (saves > kPrice) {
      EXPECT_EQ(read, kSequences);
    } else {
      EXPECT_LE(read * kPrice, 50 * kStep + 0.015 * kSequences * kSteps * kStep);
      EXPECT_GE(read, 10);
    }
  }
}

}  // namespace
}  // namespace kvasir::engine
