// From a parsed request of any protocol to the generation that answers it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/generate/generation.h"
#include "api/protocol/openai_answer.h"
#include "api/protocol/request.h"
#include "api/routes/service.h"

namespace kvasir::api {

std::string NewId(std::string_view prefix);  // and 32 hexadecimal digits

// Checks that need the server's configuration, and the draw of a seed that every replay repeats.
Status CompleteOptions(const Service& service, GenerationOptions* options);

// What the answer can't be made without; the writer is for the caller to add.
StatusOr<GenerationJob> PrepareChat(const Service& service, const HttpRequest& http,
                                    const std::string& id, ChatRequest request);

struct PromptIds {
  std::vector<TokenId> ids;
  std::string field;  // what the client calls it
};

// With `default_max_tokens` 0, an answer without a limit may fill the context.
StatusOr<GenerationJob> PreparePrompts(const Service& service, const HttpRequest& http,
                                       const std::string& id, GenerationOptions options,
                                       std::vector<PromptIds> prompts, int32_t default_max_tokens);

StatusOr<std::vector<PromptIds>> EncodePrompts(const Service& service, const TextOrIdsList& prompts,
                                               bool add_special_tokens, const std::string& field);

AnswerHead MakeHead(const Service& service, const std::string& id,
                    const GenerationOptions& options);

// Compiles the job's constraint, where it may take its time, and answers.
Continuation StartJob(Service& service, const std::shared_ptr<Exchange>& exchange,
                      GenerationJob job, ErrorFunction error);

using PrepareFunction = StatusOr<GenerationJob> (*)(const Service&, const HttpRequest&);
Handler GenerationHandler(Service& service, PrepareFunction prepare,
                          ErrorFunction error = &ErrorResponse);

}  // namespace kvasir::api
