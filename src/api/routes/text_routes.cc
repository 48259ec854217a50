#include <utility>

#include "api/protocol/answer.h"
#include "api/protocol/error.h"
#include "api/protocol/request.h"
#include "api/routes/service.h"

namespace kvasir::api {
namespace {

StatusOr<Json> Tokenize(const Service& service, const Json& body) {
  KVASIR_ASSIGN_OR_RETURN(
      const TokenizeRequest request,
      ReadBody(body, body.contains("messages") ? &ReadTokenizeChat : &ReadTokenizeText));
  KVASIR_RETURN_IF_ERROR(CheckModel(service, request.model));
  StatusOr<std::vector<TokenId>> ids = absl::UnknownError("");
  if (const auto* text = std::get_if<std::string>(&request.prompt)) {
    ids = EncodePrompt(service.text, *text, request.add_special_tokens, "prompt");
  } else {
    KVASIR_ASSIGN_OR_RETURN(EncodedChat chat,
                            EncodeChat(service.text, std::get<ChatPrompt>(request.prompt)));
    ids = std::move(chat.ids);
  }
  KVASIR_RETURN_IF_ERROR(ids.status());
  Json out;
  out["count"] = ids->size();
  out["max_model_len"] = service.engine.Model().max_model_len;
  out["tokens"] = TokenIdsJson(*ids);
  out["token_strs"] = nullptr;
  if (request.return_token_strs) {
    out["token_strs"] = Json::array();
    for (const TokenId id : *ids) {
      out["token_strs"].push_back(service.text.tokenizer->TokenBytes(id));
    }
  }
  return out;
}

StatusOr<Json> Detokenize(const Service& service, const Json& body) {
  KVASIR_ASSIGN_OR_RETURN(const DetokenizeRequest request, ReadBody(body, &ReadDetokenizeRequest));
  KVASIR_RETURN_IF_ERROR(CheckModel(service, request.model));
  if (service.text.tokenizer == nullptr) {
    return FieldError("tokens", "this model is served without a tokenizer");
  }
  for (size_t i = 0; i < request.tokens.size(); ++i) {
    if (request.tokens[i] < service.engine.Model().vocab_size) continue;
    return FieldError(absl::StrCat("tokens[", i, "]"), "is outside the vocabulary");
  }
  Json out;
  out["prompt"] = service.text.tokenizer->Decode(request.tokens, false);
  return out;
}

}  // namespace

void AddTextRoutes(Service& service, Router& router) {
  AddRoute(service, router,
           {.method = "POST",
            .path = "/tokenize",
            .summary = "the tokens of a prompt, or of messages in the chat template",
            .body = AnyOf({DescribeBody(&ReadTokenizeText), DescribeBody(&ReadTokenizeChat)}),
            .errors = {404}},
           BodyHandler(service, &Tokenize));
  AddRoute(service, router,
           {.method = "POST",
            .path = "/detokenize",
            .summary = "the text of tokens",
            .body = DescribeBody(&ReadDetokenizeRequest),
            .errors = {404}},
           BodyHandler(service, &Detokenize));
}

}  // namespace kvasir::api
