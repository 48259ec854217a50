// What all protocols' answers are made from, and the interface of those that write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/generate/choice_stream.h"
#include "api/protocol/error.h"
#include "api/protocol/json.h"

namespace kvasir::api {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;     // prompt tokens that were not computed
  int64_t reasoning_tokens = 0;  // of the completion tokens
};

// One choice, or a piece of one.
struct AnswerPart {
  int32_t index = 0;
  const std::vector<TokenId>* prompt_ids = nullptr;
  // Of the prompt's tokens from the second on, where they were asked for: complete before the first
  // piece comes.
  const std::vector<TokenOut>* prompt_logprobs = nullptr;
  int32_t cached_tokens = 0;          // of the prompt: not computed
  const std::string* echo = nullptr;  // the prompt's text, where it is part of the answer
  const ChoiceDelta* delta = nullptr;
};

// Writes one endpoint's answer: whole, or piece by piece as the body of a stream. Not thread-safe.
class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;

  virtual Json Whole(const std::vector<AnswerPart>& choices, const Usage& usage) = 0;

  virtual std::string_view StreamType() const { return "text/event-stream; charset=utf-8"; }
  // Appends what a piece adds; nothing where it tells the client nothing.
  virtual void Write(const AnswerPart& part, const Usage& usage, std::string* out) = 0;
  virtual void End(const Usage& usage, std::string* out) = 0;
  // The end of a stream that has begun and can't go on.
  virtual void Fail(const ErrorObject& error, std::string* out) = 0;
};

// A server-sent event, with or without a name.
std::string SseEvent(const Json& data);
std::string SseEvent(std::string_view name, const Json& data);

Json TokenIdsJson(const std::vector<TokenId>& ids);
Json TokenIdsJson(const std::vector<TokenOut>& tokens);

// The stop string or stop token that ended the choice, or null.
Json StopReasonJson(const ChoiceDelta& delta);

int64_t CodePoints(std::string_view utf8);

}  // namespace kvasir::api
