// The OpenAI Responses API: its bodies as chat requests, and answers in its shapes. Responses are
// not stored, so none can be fetched or gone on from by id.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "api/protocol/answer.h"
#include "api/protocol/request.h"
#include "text/tokenizer.h"

namespace kvasir::api {

struct ResponsesRequest {
  ChatRequest chat;
  // What the answer repeats of the body, with defaults where the client said nothing.
  Json echo = Json::object();
};

// Input is a text or items: messages, function calls and their outputs, reasoning. Instructions
// become the system message before them.
void ReadResponsesRequest(FieldReader& reader, ResponsesRequest* request);

struct ResponseHead {
  std::string id;       // "resp_...": the ids of items are made from it
  int64_t created = 0;  // Unix seconds
  std::string model;
  Json echo;
  bool logprobs = false;
  const text::Tokenizer* tokenizer = nullptr;  // names the tokens of logprobs; may be null
};

std::unique_ptr<AnswerWriter> ResponsesAnswer(ResponseHead head);

}  // namespace kvasir::api
