#include <utility>

#include "api/protocol/sglang_api.h"
#include "api/routes/prepare.h"
#include "api/routes/service.h"

namespace kvasir::api {
namespace {

StatusOr<GenerationJob> PrepareGenerate(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(SglangRequest request, ReadBody(json, &ReadSglangRequest));
  KVASIR_RETURN_IF_ERROR(CompleteOptions(service, &request.options));
  const std::string id = NewId("gen-");
  KVASIR_ASSIGN_OR_RETURN(std::vector<PromptIds> prompts,
                          EncodePrompts(service, request.prompts,
                                        request.options.add_special_tokens, request.prompt_field));
  KVASIR_ASSIGN_OR_RETURN(
      GenerationJob job,
      PreparePrompts(service, http, id, std::move(request.options), std::move(prompts), 0));
  job.continues_prompt = true;
  const SamplingParams& sampling = job.options.sampling;
  job.writer = SglangAnswer({.id = id,
                             .arrival = http.arrival,
                             .list = request.prompts.batch || sampling.n > 1,
                             .logprobs = sampling.logprobs >= 0,
                             .top_logprobs = sampling.logprobs > 0,
                             .input_logprobs_from = request.input_logprobs_from,
                             .tokenizer = service.text.tokenizer});
  return job;
}

}  // namespace

void AddSglangRoutes(Service& service, Router& router) {
  AddRoute(service, router,
           {.method = "POST",
            .path = "/generate",
            .summary = "what follows a text or token ids, in SGLang's shapes",
            .body = DescribeBody(&ReadSglangRequest),
            .errors = {404, 408},
            .stream = "text/event-stream"},
           GenerationHandler(service, &PrepareGenerate));
}

}  // namespace kvasir::api
