#include "api/protocol/openapi.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace kvasir::api {
namespace {

const char* Meaning(int status) {
  switch (status) {
    case 400:
      return "the request is wrong; the message names the field";
    case 401:
      return "missing or wrong API key";
    case 404:
      return "no such model";
    case 408:
      return "the request took longer than the server allows";
    case 413:
      return "the body is too large";
    case 415:
      return "the body is declared to be something else than JSON";
    case 429:
      return "too many requests; Retry-After says when to come again";
    case 503:
      return "the server starts, ends or does not respond";
    default:
      return "the server failed";
  }
}

Json ErrorAnswer(int status) {
  return {{"description", Meaning(status)},
          {"content", {{"application/json", {{"schema", {{"type", "object"}}}}}}}};
}

Json Content(const Operation& operation) {
  Json content;
  content[operation.answer] = Json::object();
  if (operation.answer == "application/json") {
    content[operation.answer]["schema"] = {{"type", {"object", "array"}}};
  }
  if (!operation.stream.empty()) content[operation.stream] = Json::object();
  return content;
}

Json IdParameter() {
  return {{"name", "id"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}};
}

}  // namespace

void OpenApi::Add(Operation operation) {
  Json entry;
  entry["summary"] = operation.summary;
  std::string path = operation.path;
  if (path.ends_with("/*")) {
    path.replace(path.size() - 1, 1, "{id}");
    entry["parameters"] = Json::array({IdParameter()});
  }
  std::vector<int> errors = std::move(operation.errors);
  if (operation.needs_key) errors.push_back(401);
  if (!operation.body.is_null()) {
    entry["requestBody"] = {
        {"required", true},
        {"content", {{"application/json", {{"schema", std::move(operation.body)}}}}}};
    errors.insert(errors.end(), {400, 413, 415, 429});
  }
  errors.push_back(500);
  errors.push_back(503);
  std::sort(errors.begin(), errors.end());
  entry["responses"]["200"] = {{"description", "the answer"}, {"content", Content(operation)}};
  for (const int status : errors) entry["responses"][std::to_string(status)] = ErrorAnswer(status);
  entry["security"] = operation.needs_key
                          ? Json::array({{{"bearer", Json::array()}}, Json::object()})
                          : Json::array();
  std::string method = operation.method;
  std::transform(method.begin(), method.end(), method.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  paths_[path][method] = std::move(entry);
}

Json OpenApi::Document() const {
  Json out;
  out["openapi"] = "3.1.0";
  out["info"] = {{"title", "Kvasir"}, {"version", version_}};
  out["paths"] = paths_;
  out["components"]["securitySchemes"]["bearer"] = {{"type", "http"}, {"scheme", "bearer"}};
  return out;
}

}  // namespace kvasir::api
