// The Anthropic Messages API: its bodies as chat requests, and answers in its shapes.
#pragma once

#include <memory>
#include <string>

#include "api/protocol/answer.h"
#include "api/protocol/error.h"
#include "api/protocol/request.h"

namespace kvasir::api {

// A last message of the assistant's is gone on with. A tool_result block becomes a message of the
// tool's, thinking blocks the message's reasoning_content; parts that are no text are refused.
void ReadMessagesRequest(FieldReader& reader, ChatRequest* request);
void ReadCountTokensRequest(FieldReader& reader, ChatRequest* request);

std::unique_ptr<AnswerWriter> MessagesAnswer(std::string id, std::string model);

HttpResponse MessagesError(const ErrorObject& error);

}  // namespace kvasir::api
