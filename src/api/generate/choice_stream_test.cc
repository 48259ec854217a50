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

TEST_F(ChoiceStreamTest, SplitsReasoningAndCallsFromContent) {
  options_.format = {text::ToolFormat::kHermes, text::ReasoningFormat::kThinkTags};
  options_.new_call_id = [n = 0]() mutable { return absl::StrCat("id", n++); };
  ChoiceStream stream(options_);
  ChoiceDelta whole = stream.Add(Tokens(0, "<think>Hm</think>Hi <tool_call>{\"name\": \"f\", "));
  EXPECT_EQ(whole.reasoning, "Hm");
  EXPECT_EQ(whole.text, "Hi");
  EXPECT_TRUE(whole.tool_calls.empty());
  whole.Append(stream.Add(Tokens(0, "\"arguments\": {\"a\"")));
  whole.Append(stream.Add(Tokens(0, ": 1}}</tool_call><tool_call>{\"name\": \"g\"}</tool_call>")));
  whole.Append(stream.Add(End(256)));
  ASSERT_EQ(whole.tool_calls.size(), 2u);
  EXPECT_EQ(whole.tool_calls[0].id, "id0");
  EXPECT_EQ(whole.tool_calls[0].name, "f");
  EXPECT_EQ(whole.tool_calls[0].arguments, "{\"a\": 1}");
  EXPECT_EQ(whole.tool_calls[1].id, "id1");
  EXPECT_EQ(whole.finish_reason, "tool_calls");
  EXPECT_EQ(whole.text, "Hi");
}

TEST_F(ChoiceStreamTest, ACallThatWasCutOffEndsByLength) {
  options_.format.tools = text::ToolFormat::kHermes;
  options_.new_call_id = [] { return "id"; };
  ChoiceStream stream(options_);
  ChoiceDelta whole =
      stream.Add(Tokens(0, "<tool_call>{\"name\": \"f\", \"arguments\": {", FinishReason::kLength));
  EXPECT_EQ(whole.finish_reason, "length");
  ASSERT_EQ(whole.tool_calls.size(), 1u);
  EXPECT_EQ(whole.tool_calls[0].arguments, "{");
}

TEST_F(ChoiceStreamTest, AStopStringEndsWhatIsParsed) {
  options_.format.tools = text::ToolFormat::kHermes;
  options_.stop = {"END"};
  ChoiceStream stream(options_);
  const ChoiceDelta last = stream.Add(Tokens(0, "a <tooEND"));
  EXPECT_EQ(last.text, "a <too");
  EXPECT_EQ(last.finish_reason, "stop");
  EXPECT_TRUE(last.cancel_engine);
}

TEST_F(ChoiceStreamTest, ReadsMarkersThatAreControlTokens) {
  tokenizer_.AddSpecial("[TOOL_CALLS]");
  options_.format.tools = text::ToolFormat::kMistral;
  options_.new_call_id = [] { return "id"; };
  ChoiceStream stream(options_);
  stream.Add({.tokens = {{.id = 259}, {.id = ToyTokenizer::kImEnd}}});
  const ChoiceDelta call = stream.Add(Tokens(0, "f{}"));
  ASSERT_EQ(call.tool_calls.size(), 1u);
  EXPECT_EQ(call.tool_calls[0].name, "f");
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
