// SGLang's own /generate: texts or token ids in, text and token ids out.
#pragma once

#include <memory>
#include <string>

#include "api/protocol/answer.h"
#include "api/protocol/request.h"
#include "base/clock.h"
#include "text/tokenizer.h"

namespace kvasir::api {

struct SglangRequest {
  GenerationOptions options;
  TextOrIdsList prompts;
  std::string prompt_field;          // text or input_ids
  int32_t input_logprobs_from = -1;  // prompt position; -1: none
};

void ReadSglangRequest(FieldReader& reader, SglangRequest* request);

struct SglangHead {
  std::string id;
  TimePoint arrival{};
  bool list = false;  // of answers; else there is one
  bool logprobs = false;
  bool top_logprobs = false;
  int32_t input_logprobs_from = -1;
  const text::Tokenizer* tokenizer = nullptr;  // names the tokens of logprobs; may be null
};

// Pieces of a stream hold all that came before them, as SGLang's do.
std::unique_ptr<AnswerWriter> SglangAnswer(SglangHead head);

}  // namespace kvasir::api
