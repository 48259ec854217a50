#include <ctime>
#include <utility>

#include "api/protocol/responses_api.h"
#include "api/routes/prepare.h"
#include "api/routes/service.h"

namespace kvasir::api {
namespace {

StatusOr<GenerationJob> PrepareResponse(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(ResponsesRequest request, ReadBody(json, &ReadResponsesRequest));
  const std::string id = NewId("resp_");
  KVASIR_ASSIGN_OR_RETURN(GenerationJob job,
                          PrepareChat(service, http, id, std::move(request.chat)));
  job.writer = ResponsesAnswer({.id = id,
                                .created = std::time(nullptr),
                                .model = service.engine.Model().name,
                                .echo = std::move(request.echo),
                                .logprobs = job.options.sampling.logprobs >= 0,
                                .tokenizer = service.text.tokenizer});
  return job;
}

}  // namespace

void AddResponsesRoutes(Service& service, Router& router) {
  AddRoute(service, router,
           {.method = "POST",
            .path = "/v1/responses",
            .summary = "an answer to a text or to items",
            .body = DescribeBody(&ReadResponsesRequest),
            .errors = {404, 408},
            .stream = "text/event-stream"},
           GenerationHandler(service, &PrepareResponse));
}

}  // namespace kvasir::api
