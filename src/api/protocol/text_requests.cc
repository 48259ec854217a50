#include <utility>

#include "api/protocol/request.h"

namespace kvasir::api {

void ReadTokenizeText(FieldReader& reader, TokenizeRequest* request) {
  std::string prompt;
  reader.Read("model", &request->model);
  reader.Require("prompt");
  reader.Read("prompt", &prompt);
  reader.Read("add_special_tokens", &request->add_special_tokens);
  reader.Read("return_token_strs", &request->return_token_strs);
  request->prompt = std::move(prompt);
}

void ReadTokenizeChat(FieldReader& reader, TokenizeRequest* request) {
  ChatPrompt prompt;
  ToolOptions tools;
  reader.Read("model", &request->model);
  ReadChatPrompt(reader, &prompt);
  ReadTools(reader, &tools);
  request->add_special_tokens = false;  // a template writes its own
  reader.Read("add_special_tokens", &request->add_special_tokens);
  reader.Read("return_token_strs", &request->return_token_strs);
  prompt.tools = std::move(tools.definitions);
  request->prompt = std::move(prompt);
}

void ReadDetokenizeRequest(FieldReader& reader, DetokenizeRequest* request) {
  reader.Read("model", &request->model);
  reader.Require("tokens");
  reader.Read("tokens", &request->tokens);
}

}  // namespace kvasir::api
