// The description of the API that /openapi.json serves (OpenAPI 3.1).
#pragma once

#include <string>
#include <vector>

#include "api/protocol/json.h"

namespace kvasir::api {

struct Operation {
  std::string method;  // upper case
  std::string path;    // "/*" at the end stands for a parameter `id`
  std::string summary;
  Json body;                                // its JSON Schema; null: there is none
  std::vector<int> errors;                  // besides those that any operation may answer
  std::string answer = "application/json";  // media type
  std::string stream;                       // of the answer where the body asks for a stream
  bool needs_key = true;
};

// Not thread-safe until all operations are there.
class OpenApi {
 public:
  explicit OpenApi(std::string version) : version_(std::move(version)) {}

  void Add(Operation operation);
  Json Document() const;

 private:
  const std::string version_;
  Json paths_ = Json::object();
};

}  // namespace kvasir::api
