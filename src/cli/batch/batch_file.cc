#include "cli/batch/batch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "api/protocol/fields.h"

namespace kvasir::cli {
namespace {

using api::Json;

constexpr std::array<std::string_view, 7> kUrls = {
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings",
    "/v1/messages",         "/v1/rerank",      "/v1/score"};

Json Line(const std::string& id, const std::string& custom_id) {
  return {{"id", id},
          {"custom_id", custom_id.empty() ? Json(nullptr) : Json(custom_id)},
          {"response", nullptr},
          {"error", nullptr}};
}

}  // namespace

StatusOr<BatchRequest> BatchReader::Read(std::string_view line, std::string* custom_id) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, api::ParseJsonObject(line));
  api::FieldReader reader(json, "");
  BatchRequest request;
  bool post = false, streams = false;
  reader.Require("custom_id");
  reader.Read("custom_id", &request.custom_id);
  *custom_id = request.custom_id;
  reader.Require("method");
  reader.ReadWord("method", {{"POST", true}}, &post);
  reader.Require("url");
  reader.Read("url", &request.url);
  reader.Require("body");
  reader.ReadObject("body", [&](api::FieldReader& body) {
    body.Read("stream", &streams);
    if (streams) body.Fail("stream", "is not for a request of a batch");
    request.body = api::Dump(body.object());
  });
  if (reader.ok() && std::find(kUrls.begin(), kUrls.end(), request.url) == kUrls.end()) {
    reader.Fail("url", "is none that a batch may ask");
  }
  if (reader.ok() && !seen_.insert(request.custom_id).second) {
    reader.Fail("custom_id", "is that of an earlier line");
  }
  KVASIR_RETURN_IF_ERROR(reader.status());
  return request;
}

std::string BatchAnswer(const std::string& id, const std::string& custom_id,
                        const api::HttpResponse& response) {
  Json line = Line(id, custom_id);
  line["response"] = {{"status_code", response.status},
                      {"request_id", id},
                      {"body", Json::parse(response.body, nullptr, false)}};
  return api::Dump(line);
}

std::string BatchError(const std::string& id, const std::string& custom_id, const Status& error) {
  Json line = Line(id, custom_id);
  line["error"] = {{"code", "invalid_line"}, {"message", std::string(error.message())}};
  return api::Dump(line);
}

}  // namespace kvasir::cli
