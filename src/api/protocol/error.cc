#include "api/protocol/error.h"

#include <absl/strings/cord.h>
#include <absl/strings/str_cat.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/protocol/json.h"
#include "core/retry_after.h"

namespace kvasir::api {
namespace {

struct Kind {
  int http_status;
  const char* type;
};

Kind KindOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
      return {400, "invalid_request_error"};
    case absl::StatusCode::kUnauthenticated:
      return {401, "invalid_request_error"};
    case absl::StatusCode::kNotFound:
      return {404, "invalid_request_error"};
    case absl::StatusCode::kDeadlineExceeded:
      return {408, "timeout_error"};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_error"};
    case absl::StatusCode::kUnavailable:
      return {503, "service_unavailable_error"};
    default:
      return {500, "server_error"};
  }
}

const char* DefaultCode(int http_status) {
  switch (http_status) {
    case 408:
      return "request_timeout";
    case 429:
      return "rate_limit_exceeded";
    case 500:
      return "internal_error";
    case 503:
      return "service_unavailable";
    default:
      return "";
  }
}

std::string Payload(const Status& status, std::string_view key) {
  const auto payload = status.GetPayload({key.data(), key.size()});
  return payload ? std::string(*payload) : std::string();
}

void SetPayload(Status& status, std::string_view key, std::string_view value) {
  status.SetPayload({key.data(), key.size()},
                    absl::Cord(absl::string_view(value.data(), value.size())));
}

// Header values are whole seconds (RFC 9110); a wait of 0.2 s is rounded up to one.
std::string WholeSeconds(std::optional<double> seconds) {
  if (!seconds || !(*seconds >= 0 && *seconds < 1e6)) return "1";
  return absl::StrCat(std::max<int64_t>(1, static_cast<int64_t>(std::ceil(*seconds))));
}

bool IsFieldName(std::string_view text) {
  if (text.empty() || text.size() > 64) return false;
  for (char c : text) {
    const bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
                    c == '[' || c == ']';
    if (!ok) return false;
  }
  return true;
}

}  // namespace

Status FieldError(std::string_view field, std::string_view message) {
  Status status =
      absl::InvalidArgumentError(absl::StrCat(std::string(field), ": ", std::string(message)));
  SetPayload(status, kParamPayload, field);
  return status;
}

Status WithCode(Status status, std::string_view code) {
  SetPayload(status, kCodePayload, code);
  return status;
}

Status FieldFromMessage(Status status) {
  if (!absl::IsInvalidArgument(status) || !Payload(status, kParamPayload).empty()) return status;
  const std::string_view message(status.message().data(), status.message().size());
  const size_t colon = message.find(':');
  if (colon == std::string_view::npos || !IsFieldName(message.substr(0, colon))) return status;
  SetPayload(status, kParamPayload, message.substr(0, colon));
  return status;
}

ErrorObject ToErrorObject(const Status& status) {
  const Kind kind = KindOf(status.code());
  ErrorObject error{.http_status = kind.http_status,
                    .message = std::string(status.message()),
                    .type = kind.type,
                    .param = Payload(status, kParamPayload),
                    .code = Payload(status, kCodePayload)};
  if (error.code.empty()) error.code = DefaultCode(kind.http_status);
  if (kind.http_status == 429 || kind.http_status == 503) {
    error.retry_after = WholeSeconds(RetryAfterSeconds(status));
  }
  return error;
}

std::string ErrorJson(const ErrorObject& error) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
  };
  Json body;
  body["error"]["message"] = error.message;
  body["error"]["type"] = error.type;
  body["error"]["param"] = text_or_null(error.param);
  body["error"]["code"] = text_or_null(error.code);
  return Dump(body);
}

HttpResponse ErrorResponse(const ErrorObject& error) {
  HttpResponse response{.status = error.http_status, .body = ErrorJson(error)};
  if (error.http_status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (!error.retry_after.empty()) response.headers.emplace_back("Retry-After", error.retry_after);
  return response;
}

HttpResponse ErrorResponse(const Status& status) { return ErrorResponse(ToErrorObject(status)); }

HttpResponse ErrorResponse(int http_status, std::string message) {
  return ErrorResponse(
      ErrorObject{.http_status = http_status,
                  .message = std::move(message),
                  .type = http_status >= 500 ? "server_error" : "invalid_request_error",
                  .code = DefaultCode(http_status)});
}

}  // namespace kvasir::api
