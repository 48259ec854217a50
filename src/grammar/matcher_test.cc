#include "grammar/matcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grammar/testing/walks.h"

namespace kvasir::grammar {
namespace {

using enum Constraint::Kind;
using testing::Bench;
using ::testing::ElementsAre;
using testing::Forced;

TEST(MatcherTest, EndsWhereTheOutputMayEnd) {
  Bench bench("tiny_bpe");
  const auto matcher = bench.Start(kRegex, "ab?");
  ASSERT_NE(matcher, nullptr);
  EXPECT_FALSE(matcher->ended());
  const TokenId a = bench.tokenizer->TokenToId("a");
  EXPECT_THAT(bench.Allowed(*matcher), ElementsAre(a));
}

}  // namespace
}  // namespace kvasir::grammar
