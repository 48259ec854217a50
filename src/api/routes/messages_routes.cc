#include <utility>

#include "api/protocol/messages_api.h"
#include "api/routes/prepare.h"
#include "api/routes/service.h"

namespace kvasir::api {
namespace {

StatusOr<GenerationJob> PrepareMessage(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(ChatRequest request, ReadBody(json, &ReadMessagesRequest));
  const std::string id = NewId("msg_");
  KVASIR_ASSIGN_OR_RETURN(GenerationJob job, PrepareChat(service, http, id, std::move(request)));
  job.writer = MessagesAnswer(id, service.engine.Model().name);
  return job;
}

StatusOr<Json> CountTokens(const Service& service, const Json& body) {
  KVASIR_ASSIGN_OR_RETURN(const ChatRequest request, ReadBody(body, &ReadCountTokensRequest));
  KVASIR_RETURN_IF_ERROR(CheckModel(service, request.options.model));
  KVASIR_ASSIGN_OR_RETURN(const EncodedChat chat, EncodeChat(service.text, request.prompt));
  return Json{{"input_tokens", chat.ids.size()}};
}

}  // namespace

void AddMessagesRoutes(Service& service, Router& router) {
  AddRoute(service, router,
           {.method = "POST",
            .path = "/v1/messages",
            .summary = "an answer to messages, in the Anthropic API's shapes",
            .body = DescribeBody(&ReadMessagesRequest),
            .errors = {404, 408},
            .stream = "text/event-stream"},
           GenerationHandler(service, &PrepareMessage, &MessagesError));
  AddRoute(service, router,
           {.method = "POST",
            .path = "/v1/messages/count_tokens",
            .summary = "how many tokens such messages are",
            .body = DescribeBody(&ReadCountTokensRequest),
            .errors = {404}},
           BodyHandler(service, &CountTokens, &MessagesError));
}

}  // namespace kvasir::api
