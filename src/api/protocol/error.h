// Errors as clients see them: the OpenAI error object, and how a Status becomes one.
//
// A Status on its way to a client may carry payloads: the field at fault, a machine-readable code
// and when to try again (core/retry_after.h).
#pragma once

#include <string>
#include <string_view>

#include "api/http/message.h"
#include "base/status.h"

namespace kvasir::api {

inline constexpr std::string_view kParamPayload = "kvasir/param";
inline constexpr std::string_view kCodePayload = "kvasir/code";

// InvalidArgument with the message "FIELD: MESSAGE" and the field as its `param`. A nested field is
// spelled messages[2].content.
Status FieldError(std::string_view field, std::string_view message);

Status WithCode(Status status, std::string_view code);

// The core layer names the field at fault as the prefix of its message ("top_p: ..."); this makes
// it the `param`. Other statuses come back unchanged.
Status FieldFromMessage(Status status);

struct ErrorObject {
  int http_status = 500;
  std::string message;
  std::string type;
  std::string param;        // empty: null
  std::string code;         // empty: null
  std::string retry_after;  // whole seconds; empty: no such header
};

ErrorObject ToErrorObject(const Status& status);

// {"error": {"message", "type", "param", "code"}}
std::string ErrorJson(const ErrorObject& error);

HttpResponse ErrorResponse(const ErrorObject& error);
HttpResponse ErrorResponse(const Status& status);
// For what HTTP itself refuses: 405, 413, 415, 431.
HttpResponse ErrorResponse(int http_status, std::string message);

}  // namespace kvasir::api
