#include <utility>

#include "api/protocol/error.h"
#include "api/protocol/openai_answer.h"
#include "api/protocol/request.h"
#include "api/routes/prepare.h"
#include "api/routes/service.h"

namespace kvasir::api {
namespace {

constexpr int32_t kDefaultCompletionTokens = 16;  // as in the OpenAI API

StatusOr<GenerationJob> PrepareChatCompletion(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(ChatRequest request, ReadBody(json, &ReadChatRequest));
  const std::string id = NewId("chatcmpl-");
  KVASIR_ASSIGN_OR_RETURN(GenerationJob job, PrepareChat(service, http, id, std::move(request)));
  job.writer = ChatAnswer(MakeHead(service, id, job.options));
  return job;
}

StatusOr<std::vector<PromptIds>> EncodeInfills(const Service& service,
                                               const CompletionRequest& request) {
  std::vector<PromptIds> out;
  for (const TextOrIds& prompt : request.prompts.items) {
    const auto* before = std::get_if<std::string>(&prompt);
    if (before == nullptr) return FieldError("suffix", "needs a prompt of text, not of token ids");
    KVASIR_ASSIGN_OR_RETURN(auto ids, EncodeInfill(service.text, *before, request.suffix));
    out.push_back({std::move(ids), "prompt"});
  }
  return out;
}

// The prompts as their answers repeat them: in the client's own words, unless they were shortened.
StatusOr<std::vector<std::string>> Echoes(const Service& service, const TextOrIdsList& prompts,
                                          const GenerationJob& job) {
  if (service.text.tokenizer == nullptr) {
    return FieldError("echo", "this model is served without a tokenizer");
  }
  std::vector<std::string> out;
  for (size_t i = 0; i < prompts.items.size(); ++i) {
    const auto* text = std::get_if<std::string>(&prompts.items[i]);
    out.push_back(text != nullptr && !job.options.truncate_prompt
                      ? *text
                      : service.text.tokenizer->Decode(job.requests[i]->prompt_ids,
                                                       job.options.skip_special_tokens));
  }
  return out;
}

StatusOr<GenerationJob> PrepareCompletion(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(CompletionRequest request, ReadBody(json, &ReadCompletionRequest));
  KVASIR_RETURN_IF_ERROR(CompleteOptions(service, &request.options));
  const std::string id = NewId("cmpl-");
  StatusOr<std::vector<PromptIds>> prompts =
      request.suffix.empty()
          ? EncodePrompts(service, request.prompts, request.options.add_special_tokens, "prompt")
          : EncodeInfills(service, request);
  KVASIR_RETURN_IF_ERROR(prompts.status());
  KVASIR_ASSIGN_OR_RETURN(GenerationJob job,
                          PreparePrompts(service, http, id, std::move(request.options),
                                         *std::move(prompts), kDefaultCompletionTokens));
  if (request.echo) {
    KVASIR_ASSIGN_OR_RETURN(job.echoes, Echoes(service, request.prompts, job));
  }
  job.continues_prompt = true;
  AnswerHead head = MakeHead(service, id, job.options);
  head.prompt_logprobs = request.shown_prompt_logprobs;
  job.writer = CompletionAnswer(std::move(head));
  return job;
}

}  // namespace

void AddOpenAiRoutes(Service& service, Router& router) {
  AddRoute(service, router,
           {.method = "POST",
            .path = "/v1/chat/completions",
            .summary = "an answer to messages",
            .body = DescribeBody(&ReadChatRequest),
            .errors = {404, 408},
            .stream = "text/event-stream"},
           GenerationHandler(service, &PrepareChatCompletion));
  AddRoute(service, router,
           {.method = "POST",
            .path = "/v1/completions",
            .summary = "what follows a prompt, or fills the gap between it and a suffix",
            .body = DescribeBody(&ReadCompletionRequest),
            .errors = {404, 408},
            .stream = "text/event-stream"},
           GenerationHandler(service, &PrepareCompletion));
}

}  // namespace kvasir::api
