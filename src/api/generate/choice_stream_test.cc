#include "api/generate/choice_stream.h"

#include <gtest/gtest.h>

#include "api/testing/fake_engine.h"
#include "api/testing/toy_text.h"

namespace kvasir::api {
namespace {

using testing::Tokens;
using testing::ToyTokenizer;

TokenEvent End(TokenId id) { return {.tokens = {{.id = id}}, .finish = FinishReason::kStop}; }

class ChoiceStreamTest : public ::testing::Test {
 protected:
  ToyTokenizer tokenizer_;
  ChoiceOptions options_{.tokenizer = &tokenizer_};
};

TEST_F(ChoiceStreamTest, LeavesTheEndTokenOutOfTheText) {
  ChoiceStream stream(options_);
  EXPECT_EQ(stream.Add(Tokens(0, "hi")).text, "hi");
  const ChoiceDelta last = stream.Add(End(256));
  EXPECT_EQ(last.text, "");
  EXPECT_EQ(last.tokens.size(), 1u);
  EXPECT_EQ(last.finish_reason, "stop");
  EXPECT_EQ(last.stop_reason.index(), 0u);
  EXPECT_TRUE(stream.finished());
}

TEST_F(ChoiceStreamTest, NamesTheStopTokenThatEndedIt) {
  options_.stop_token_ids = {'!'};
  ChoiceStream stream(options_);
  const ChoiceDelta last = stream.Add(End('!'));
  EXPECT_EQ(last.text, "");
  EXPECT_EQ(std::get<TokenId>(last.stop_reason), '!');

  options_.include_stop = true;
  ChoiceStream including(options_);
  EXPECT_EQ(including.Add(End('!')).text, "!");
}

TEST_F(ChoiceStreamTest, StopsAtAStringThatStraddlesEvents) {
  options_.stop = {"END"};
  ChoiceStream stream(options_);
  EXPECT_EQ(stream.Add(Tokens(0, "aE")).text, "a");
  EXPECT_EQ(stream.Add(Tokens(0, "N")).text, "");
  const ChoiceDelta last = stream.Add(Tokens(0, "Dmore"));
  EXPECT_EQ(last.text, "");
  EXPECT_EQ(last.tokens.size(), 1u);  // what came after the match is no part of the answer
  EXPECT_EQ(last.finish_reason, "stop");
  EXPECT_EQ(std::get<std::string>(last.stop_reason), "END");
  EXPECT_TRUE(last.cancel_engine);
  EXPECT_TRUE(stream.Add(Tokens(0, "x")).tokens.empty());
}

TEST_F(ChoiceStreamTest, GivesBackWhatItHeldAtTheEnd) {
  options_.stop = {"END"};
  ChoiceStream stream(options_);
  stream.Add(Tokens(0, "aEN"));
  const ChoiceDelta last = stream.Add({.finish = FinishReason::kLength});
  EXPECT_EQ(last.text, "EN");
  EXPECT_EQ(last.finish_reason, "length");
  EXPECT_FALSE(last.cancel_engine);
}

TEST_F(ChoiceStreamTest, IgnoresStopStringsInTheFirstMinTokens) {
  options_.stop = {"a"};
  options_.min_tokens = 2;
  ChoiceStream stream(options_);
  ChoiceDelta whole = stream.Add(Tokens(0, "aab"));
  EXPECT_EQ(whole.text, "aab");
  whole.Append(stream.Add(Tokens(0, "xa")));
  EXPECT_EQ(whole.text, "aabx");
  EXPECT_EQ(whole.finish_reason, "stop");
}

TEST_F(ChoiceStreamTest, NeverEmitsAPartOfACharacter) {
  ChoiceStream stream(options_);
  EXPECT_EQ(stream.Add(Tokens(0, "\xe2")).text, "");
  EXPECT_EQ(stream.Add(Tokens(0, "\x82")).text, "");
  EXPECT_EQ(stream.Add(Tokens(0, "\xac")).text, "\u20ac");
  EXPECT_EQ(stream.Add(Tokens(0, "\xe2")).text, "");
  EXPECT_EQ(stream.Add({.finish = FinishReason::kLength}).text, "\ufffd");
}

TEST_F(ChoiceStreamTest, SkipsControlTokensUnlessTold) {
  const TokenEvent event{.tokens = {{.id = 'a'}, {.id = ToyTokenizer::kImEnd}}};
  EXPECT_EQ(ChoiceStream(options_).Add(event).text, "a");
  options_.skip_special_tokens = false;
  EXPECT_EQ(ChoiceStream(options_).Add(event).text, "a<|im_end|>");
}

TEST_F(ChoiceStreamTest, WithoutATokenizerHasOnlyIds) {
  options_.tokenizer = nullptr;
  ChoiceStream stream(options_);
  const ChoiceDelta delta = stream.Add(Tokens(0, "abc", FinishReason::kLength));
  EXPECT_EQ(delta.text, "");
  EXPECT_EQ(delta.tokens.size(), 3u);
  EXPECT_EQ(delta.finish_reason, "length");
}

}  // namespace
}  // namespace kvasir::api
