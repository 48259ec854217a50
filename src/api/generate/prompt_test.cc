#include "api/generate/prompt.h"

#include <gtest/gtest.h>

#include "api/protocol/error.h"
#include "api/testing/fake_engine.h"
#include "api/testing/toy_text.h"
#include "core/block_hash.h"

namespace kvasir::api {
namespace {

using testing::ToyTokenizer;

class BuildRequestTest : public ::testing::Test {
 protected:
  BuildRequestTest() {
    model_ = testing::FakeEngine().model;
    model_.max_model_len = 100;
  }

  StatusOr<std::shared_ptr<const Request>> Build(size_t prompt_tokens) {
    return BuildRequest(model_, options_, std::vector<TokenId>(prompt_tokens, 65),
                        {.id = "r", .field = "prompt", .default_max_tokens = default_max_tokens_});
  }

  ErrorObject Error(size_t prompt_tokens) { return ToErrorObject(Build(prompt_tokens).status()); }

  ModelInfo model_;
  GenerationOptions options_;
  int32_t default_max_tokens_ = 0;
};

TEST_F(BuildRequestTest, FillsTheContextUnlessToldOtherwise) {
  EXPECT_EQ((*Build(30))->sampling.max_tokens, 70);
  default_max_tokens_ = 16;
  EXPECT_EQ((*Build(30))->sampling.max_tokens, 16);
  EXPECT_EQ((*Build(90))->sampling.max_tokens, 10);
  options_.max_tokens = 70;
  EXPECT_EQ((*Build(30))->sampling.max_tokens, 70);
}

TEST_F(BuildRequestTest, RefusesWhatDoesNotFit) {
  EXPECT_EQ(Error(0).param, "prompt");
  EXPECT_EQ(Error(100).param, "prompt");
  EXPECT_EQ(Error(100).code, "context_length_exceeded");
  EXPECT_TRUE(Build(99).ok());
  options_.max_tokens = 71;
  options_.max_tokens_field = "max_completion_tokens";
  EXPECT_EQ(Error(30).param, "max_completion_tokens");
}

TEST_F(BuildRequestTest, NamesTheFieldOfAnInvalidParameter) {
  options_.sampling.temperature = -1;
  EXPECT_EQ(Error(1).param, "temperature");
  options_.sampling.temperature = 1;
  options_.sampling.logit_bias = {{259, 1.0f}};
  EXPECT_EQ(Error(1).param, "logit_bias");
  options_.sampling.logit_bias.clear();
  options_.sampling.min_tokens = 5;
  options_.max_tokens = 4;
  EXPECT_EQ(Error(1).param, "min_tokens");
  EXPECT_EQ(
      ToErrorObject(BuildRequest(model_, {}, {1, 259}, {.field = "prompt[3]"}).status()).param,
      "prompt[3]");
}

TEST_F(BuildRequestTest, KeepsTheEndOfALongPrompt) {
  options_.truncate_prompt = 3;
  const auto request = *BuildRequest(model_, options_, {1, 2, 3, 4, 5}, {.field = "prompt"});
  EXPECT_EQ(request->prompt_ids, (std::vector<TokenId>{3, 4, 5}));
  options_.truncate_prompt = -1;
  EXPECT_EQ((*Build(500))->prompt_ids.size(), 99u);
  options_.max_tokens = 30;
  EXPECT_EQ((*Build(500))->prompt_ids.size(), 70u);
  EXPECT_EQ((*Build(10))->prompt_ids.size(), 10u);
}

TEST_F(BuildRequestTest, CarriesConstraintsAndLimitsOfTokens) {
  options_.constraint = {Constraint::Kind::kRegex, "a"};
  options_.sampling.allowed_token_ids = {65, 256};
  options_.sampling.bad_words = {{66, 67}};
  const auto request = *Build(1);
  EXPECT_EQ(request->constraint, options_.constraint);
  EXPECT_EQ(request->sampling.allowed_token_ids, (std::vector<TokenId>{65, 256}));
  options_.sampling.allowed_token_ids = {259};
  EXPECT_EQ(Error(1).param, "allowed_token_ids");
  options_.sampling.allowed_token_ids.clear();
  options_.sampling.bad_words = {{259}};
  EXPECT_EQ(Error(1).param, "bad_words");
}

TEST_F(BuildRequestTest, HashesThePromptUnderTheModelAndTheSalt) {
  const auto plain = *Build(40);
  EXPECT_EQ(plain->hash_root, CacheRoot("weights", "numerics", "", ""));
  EXPECT_EQ(plain->unit_hashes, HashUnits(plain->hash_root, plain->prompt_ids));
  EXPECT_EQ(plain->unit_hashes.size(), 2u);
  options_.cache_salt = "tenant";
  EXPECT_NE((*Build(40))->unit_hashes, plain->unit_hashes);
}

TEST(EncodeChat, KeepsControlTextOfUsersText) {
  ToyTokenizer tokenizer;
  testing::ToyChatTemplate chat_template;
  const ServedText text{&tokenizer, &chat_template};
  const auto chat =
      EncodeChat(text, {.messages = Json::parse(R"([{"role":"user","content":"<|im_end|>"}])")});
  ASSERT_TRUE(chat.ok());
  const std::vector<TokenId>& ids = chat->ids;
  EXPECT_EQ(std::count(ids.begin(), ids.end(), ToyTokenizer::kImEnd), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), ToyTokenizer::kImStart), 2);

  const Status refused =
      EncodeChat(text, {.messages = Json::parse(R"([{"role":"user","content":"raise"}])")})
          .status();
  EXPECT_EQ(ToErrorObject(refused).param, "messages");
  EXPECT_EQ(ToErrorObject(EncodeChat({}, {}).status()).http_status, 400);
}

TEST(EncodeChat, TellsWhereAContinuedMessageLeavesOff) {
  ToyTokenizer tokenizer;
  testing::ToyChatTemplate chat_template;
  const ServedText text{&tokenizer, &chat_template};
  const auto state = [&](const char* content) {
    const Json message = {{"role", "assistant"}, {"content", content}};
    return EncodeChat(text, {.messages = Json::array({message}), .continue_final_message = true})
        ->reasoning;
  };
  EXPECT_EQ(state("<think>Hm, "), text::ReasoningState::kOpen);
  EXPECT_EQ(state("<think>Hm</think>So "), text::ReasoningState::kClosed);
  EXPECT_EQ(state("So "), text::ReasoningState::kClosed);
}

TEST(EncodeBadWords, TakesWordsWithAndWithoutASpace) {
  ToyTokenizer tokenizer;
  EXPECT_EQ(*EncodeBadWords(tokenizer, {"ab", " c"}),
            (std::vector<std::vector<TokenId>>{{97, 98}, {32, 97, 98}, {99}, {32, 99}}));
}

TEST(EncodePrompt, PutsThePrefixBeforeText) {
  ToyTokenizer tokenizer;
  tokenizer.prefix = {ToyTokenizer::kEnd};
  const ServedText text{&tokenizer, nullptr};
  EXPECT_EQ(*EncodePrompt(text, "a", true, "prompt"), (std::vector<TokenId>{256, 97}));
  EXPECT_EQ(*EncodePrompt(text, "a", false, "prompt"), (std::vector<TokenId>{97}));
  EXPECT_EQ(*EncodePrompt(text, "<|im_end|>", false, "prompt"), (std::vector<TokenId>{258}));
  EXPECT_EQ(*EncodePrompt(text, std::vector<TokenId>{5}, true, "prompt"),
            (std::vector<TokenId>{5}));
  EXPECT_EQ(ToErrorObject(EncodePrompt({}, "a", true, "prompt[2]").status()).param, "prompt[2]");
}

}  // namespace
}  // namespace kvasir::api
