// Answers in the shapes of the OpenAI API with vLLM's additions (token_ids, stop_reason,
// prompt_logprobs, reasoning_content).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/protocol/answer.h"
#include "core/engine_client.h"
#include "text/tokenizer.h"

namespace kvasir::api {

// What every chunk of one answer repeats, and how it is written.
struct AnswerHead {
  std::string id;
  int64_t created = 0;  // Unix seconds
  std::string model;
  bool logprobs = false;
  bool token_ids = false;
  int32_t prompt_logprobs = -1;                // as the client asked, to be shown on their own
  bool include_usage = false;                  // in a last chunk of a stream
  bool continuous_usage = false;               // in all of its chunks
  const text::Tokenizer* tokenizer = nullptr;  // names the tokens of logprobs; may be null
};

std::unique_ptr<AnswerWriter> ChatAnswer(AnswerHead head);
std::unique_ptr<AnswerWriter> CompletionAnswer(AnswerHead head);

Json UsageJson(const Usage& usage);
Json ModelJson(const ModelInfo& model, int64_t created);

// The bytes a token stands for; without a tokenizer its number, spelled as vLLM does.
std::string TokenText(const text::Tokenizer* tokenizer, TokenId id);

// One object a token: its text, bytes and log-probability, and those of the best alternatives.
Json LogprobEntries(const std::vector<TokenOut>& tokens, const text::Tokenizer* tokenizer);

// The parts that the writers share.
class OpenAiWriter : public AnswerWriter {
 public:
  explicit OpenAiWriter(AnswerHead head) : head_(std::move(head)) {}

  void End(const Usage& usage, std::string* out) override;
  void Fail(const ErrorObject& error, std::string* out) override;

 protected:
  virtual const char* ChunkObject() const = 0;
  Json Head(const char* object) const;
  void WriteChunk(Json chunk, const Usage& usage, std::string* out) const;
  // Text may be held back for a while; a chunk that would say nothing is not sent.
  bool HasNews(const ChoiceDelta& delta) const;
  // vLLM's: null for the first token, then for each an object of token ids.
  Json PromptLogprobs(const AnswerPart& part) const;
  std::string TokenText(TokenId id) const { return api::TokenText(head_.tokenizer, id); }

  const AnswerHead head_;
};

Json FinishReasonJson(const ChoiceDelta& delta);

// Text as the key of an object. Two tokens that are halves of characters would both be written as
// U+FFFD, and an object must not hold a key twice.
std::string KeyText(const std::string& text);

}  // namespace kvasir::api
