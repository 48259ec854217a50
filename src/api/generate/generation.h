// One HTTP request's generation: its prompts and their choices, from submission to the last byte.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/generate/choice_stream.h"
#include "api/http/exchange.h"
#include "api/metrics.h"
#include "api/protocol/answer.h"
#include "api/protocol/request.h"
#include "core/engine_client.h"

namespace kvasir::api {

struct GenerationJob {
  std::vector<std::shared_ptr<const Request>> requests;  // one a prompt, all with the same n
  GenerationOptions options;
  std::unique_ptr<AnswerWriter> writer;
  HttpResponse (*error)(const ErrorObject&) =
      &ErrorResponse;                          // one that comes instead of an answer
  const text::Tokenizer* tokenizer = nullptr;  // null: no text
  std::vector<std::string> echoes;  // a prompt's text each, or empty: not part of answers
  bool continues_prompt = false;    // the answer's text goes on from the prompt's
  text::OutputFormat format;        // of the answer's reasoning and tool calls
  text::ReasoningState reasoning = text::ReasoningState::kNotBegun;  // where the prompt leaves off
  std::function<std::string()> new_call_id;                          // for a format with tool calls
};

// Submits the job's requests and answers the exchange, as a stream or at the end. Runs on the
// exchange's executor; the engine's events are brought there. `engine`, `metrics` and the tokenizer
// outlive every generation. If the client goes, all that still runs is cancelled.
void StartGeneration(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
                     GenerationJob job);

}  // namespace kvasir::api
