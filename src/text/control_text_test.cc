#include "text/control_text.h"

#include <gtest/gtest.h>

namespace kvasir::text {
namespace {

using Ranges = std::vector<ControlTexts::Range>;

TEST(ControlTextsTest, FindsWholeTokensTheLongestFirst) {
  const ControlTexts controls({"<s>", "<s>x", "<|end|>", "[A]"});
  EXPECT_EQ(controls.Find("a<s>b<s>x[A]", true), (Ranges{{1, 4}, {5, 9}, {9, 12}}));
  EXPECT_EQ(controls.Find("<<|end|><s", true), (Ranges{{1, 8}}));
  EXPECT_EQ(controls.Find("plain <text>", true), Ranges{});
  EXPECT_EQ(controls.Find("", false), Ranges{});
}

TEST(ControlTextsTest, FindsPartsThatTheTextAroundCouldComplete) {
  const ControlTexts controls({"<|end|>", "<|start|>"});
  EXPECT_EQ(controls.Find("hello <|sta", false), (Ranges{{6, 11}}));
  EXPECT_EQ(controls.Find("rt|> hello", false), (Ranges{{0, 4}}));
  EXPECT_EQ(controls.Find("> quoted, a <", false), (Ranges{{0, 1}, {12, 13}}));
  EXPECT_EQ(controls.Find("end", false), (Ranges{{0, 3}}));
  EXPECT_EQ(controls.Find("end", true), Ranges{});
  EXPECT_EQ(controls.Find("endless", false), Ranges{});
  EXPECT_EQ(controls.Find("|><|end|><|", false), (Ranges{{0, 2}, {2, 9}, {9, 11}}));
}

TEST(ControlTextsTest, OverlappingPartsBecomeOne) {
  const ControlTexts controls({"ab", "bcd"});
  EXPECT_EQ(controls.Find("xabc", false), (Ranges{{1, 4}}));
}

TEST(ControlTextsTest, KnowsNothingWithoutTokens) {
  const ControlTexts controls({});
  EXPECT_EQ(controls.Find("<|end|>", false), Ranges{});
}

}  // namespace
}  // namespace kvasir::text
