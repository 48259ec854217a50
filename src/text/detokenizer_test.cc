#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "text/testing/vocabularies.h"
#include "text/utf8.h"

namespace kvasir::text {
namespace {

using testing::TinyTokenizer;

class DetokenizerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DetokenizerTest, PiecesAreWholeAndJoinToTheDecodedText) {
  const auto tokenizer = TinyTokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    const bool skip_special = round % 2 == 0;
    Detokenizer detokenizer(*tokenizer, skip_special);
    std::vector<TokenId> ids;
    std::string joined;
    for (int i = 0; i < 24; ++i) {
      // Two beyond either end: unknown ids are skipped.
      ids.push_back(static_cast<TokenId>(random() % (tokenizer->vocab_size() + 4)) - 2);
      const std::string piece = detokenizer.Add(ids.back());
      ASSERT_TRUE(IsValidUtf8(piece));
      joined += piece;
    }
    joined += detokenizer.Flush();
    ASSERT_EQ(joined, tokenizer->Decode(ids, skip_special));
  }
}

TEST_P(DetokenizerTest, StreamsATextAsItIsTyped) {
  const auto tokenizer = TinyTokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const std::string text = "Hello 😀 world, 你好  two spaces\n\n\tnaïve ▁ end ";
  const auto ids = tokenizer->Encode(text, false);
  ASSERT_TRUE(ids.ok()) << ids.status();
  Detokenizer detokenizer(*tokenizer, true);
  std::string joined;
  for (const TokenId id : *ids) {
    joined += detokenizer.Add(id);
    EXPECT_TRUE(text.starts_with(joined) || tokenizer->DropsFirstSpace()) << joined;
  }
  // SentencePiece writes a space and its own mark for it the same way.
  EXPECT_EQ(detokenizer.Flush(), "");
  EXPECT_EQ(joined, tokenizer->DropsFirstSpace()
                        ? "Hello 😀 world, 你好  two spaces\n\n\tnaïve   end "
                        : text);
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, DetokenizerTest, ::testing::Values("tiny_bpe", "tiny_spm"));

TEST(DetokenizerSpaceTest, TheFirstSpaceStaysWhereTheTextGoesOn) {
  const auto tokenizer = TinyTokenizer("tiny_spm");
  ASSERT_NE(tokenizer, nullptr);
  const auto ids = tokenizer->Encode("world", false);
  ASSERT_TRUE(ids.ok());
  std::string begins, continues;
  Detokenizer first(*tokenizer, true);
  Detokenizer second(*tokenizer, true, /*continues=*/true);
  for (const TokenId id : *ids) {
    begins += first.Add(id);
    continues += second.Add(id);
  }
  EXPECT_EQ(begins, "world");
  EXPECT_EQ(continues, " world");
}

// What a StopMatcher gives, computed from the whole text.
StopMatcher::Result Expected(const std::string& text, const std::vector<std::string>& stops,
                             bool include_stop) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string* found = nullptr;
    for (const std::string& stop : stops) {
      if (stop.empty() || !std::string_view(text).substr(0, end).ends_with(stop)) continue;
      if (found == nullptr || found->size() < stop.size()) found = &stop;
    }
    if (found == nullptr) continue;
    return {text.substr(0, include_stop ? end : end - found->size()), *found};
  }
  return {text, std::nullopt};
}

TEST(StopMatcherTest, FindsTheSameHoweverTheStreamIsCut) {
  std::mt19937 random(4);
  const auto random_text = [&random](size_t longest) {
    std::string text;
    for (size_t n = random() % (longest + 1); n > 0; --n) text += "abc"[random() % 3];
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (int n = 1 + random() % 3; n > 0; --n) stops.push_back(random_text(4));
    const bool include_stop = random() % 2;
    const std::string text = random_text(16);
    StopMatcher matcher(stops, include_stop);
    StopMatcher::Result got;
    for (std::string_view rest = text; !rest.empty();) {
      const size_t size = 1 + random() % rest.size();
      StopMatcher::Result step = matcher.Add(rest.substr(0, size));
      got.text += step.text;
      if (step.match) got.match = step.match;
      rest.remove_prefix(size);
    }
    got.text += matcher.Flush();
    const StopMatcher::Result expected = Expected(text, stops, include_stop);
    ASSERT_EQ(got.text, expected.text) << text;
    ASSERT_EQ(got.match, expected.match) << text;
  }
}

TEST(StopMatcherTest, HoldsBackNoMoreThanCanBeginAStop) {
  StopMatcher matcher({"END", "\n\n"}, false);
  EXPECT_EQ(matcher.Add("abc E").text, "abc ");
  EXPECT_EQ(matcher.Add("N").text, "");
  EXPECT_EQ(matcher.Add("X\n").text, "ENX");
  const StopMatcher::Result last = matcher.Add("\nmore");
  EXPECT_EQ(last.text, "");
  EXPECT_EQ(last.match, "\n\n");
  EXPECT_EQ(matcher.Add("END").text, "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, WithoutStopsEverythingPasses) {
  StopMatcher matcher({"", ""}, false);
  EXPECT_EQ(matcher.Add("abc").text, "abc");
}

}  // namespace
}  // namespace kvasir::text
