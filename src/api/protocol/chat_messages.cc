#include "api/protocol/chat_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "api/protocol/error.h"

namespace kvasir::api {
namespace {

constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                    "assistant", "tool",      "function"};

StatusOr<std::string> PartText(const Json& part, const std::string& path) {
  if (part.is_string()) return part.get<std::string>();
  if (!part.is_object()) return FieldError(path, "must be an object with a type");
  FieldReader reader(part, path);
  std::string type;
  reader.Read("type", &type);
  KVASIR_RETURN_IF_ERROR(reader.status());
  if (type.empty()) return FieldError(path + ".type", "is required");
  if (type != "text" && type != "input_text" && type != "output_text" && type != "refusal") {
    return FieldError(path + ".type",
                      fmt::format("'{}' parts are not supported: this model takes text only",
                                  type.substr(0, 64)));
  }
  const char* field = type == "refusal" ? "refusal" : "text";
  if (reader.Get(field) == nullptr) return FieldError(path + "." + field, "is required");
  std::string text;
  reader.Read(field, &text);
  KVASIR_RETURN_IF_ERROR(reader.status());
  return text;
}

StatusOr<std::string> JoinParts(const Json& parts, const std::string& path) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    KVASIR_ASSIGN_OR_RETURN(const std::string part,
                            PartText(parts[i], fmt::format("{}[{}]", path, i)));
    if (i > 0) text += '\n';
    text += part;
  }
  return text;
}

Status NormalizeRole(FieldReader& reader, const std::string& path, Json* message) {
  std::string role;
  reader.Read("role", &role);
  KVASIR_RETURN_IF_ERROR(reader.status());
  if (role.empty()) return FieldError(path + ".role", "is required");
  if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end()) {
    return FieldError(path + ".role",
                      fmt::format("'{}' is not one of system, developer, user, assistant, tool "
                                  "and function",
                                  role.substr(0, 64)));
  }
  (*message)["role"] = role == "developer" ? "system" : role;
  return absl::OkStatus();
}

Status CheckToolCall(const Json& call, const std::string& path) {
  if (!call.is_object()) return FieldError(path, "must be an object");
  const auto function = call.find("function");
  if (function == call.end() || !function->is_object()) {
    return FieldError(path + ".function", "must be an object");
  }
  FieldReader reader(*function, path + ".function");
  std::string name;
  reader.Read("name", &name);
  KVASIR_RETURN_IF_ERROR(reader.status());
  if (name.empty()) return FieldError(reader.Path("name"), "is required");
  const Json* arguments = reader.Get("arguments");
  if (arguments == nullptr || arguments->is_string() || arguments->is_object()) {
    return absl::OkStatus();
  }
  return FieldError(reader.Path("arguments"), "must be a string that holds JSON");
}

// Templates ask whether a message has calls, not how many.
Status NormalizeToolCalls(const FieldReader& reader, const std::string& path, Json* message) {
  const Json* calls = reader.Get("tool_calls");
  if (calls == nullptr || (calls->is_array() && calls->empty())) {
    message->erase("tool_calls");
    return absl::OkStatus();
  }
  if (!calls->is_array()) return FieldError(path + ".tool_calls", "must be an array");
  for (size_t i = 0; i < calls->size(); ++i) {
    KVASIR_RETURN_IF_ERROR(CheckToolCall((*calls)[i], fmt::format("{}.tool_calls[{}]", path, i)));
  }
  return absl::OkStatus();
}

Status CheckReasoning(FieldReader& reader, Json* message) {
  std::string reasoning;
  reader.Read("reasoning_content", &reasoning);
  if (reader.Get("reasoning_content") == nullptr) message->erase("reasoning_content");
  return reader.status();
}

StatusOr<Json> NormalizeMessage(const Json& message, const std::string& path) {
  if (!message.is_object()) return FieldError(path, "must be an object with role and content");
  Json out = message;
  FieldReader reader(message, path);
  KVASIR_RETURN_IF_ERROR(NormalizeRole(reader, path, &out));
  KVASIR_RETURN_IF_ERROR(NormalizeToolCalls(reader, path, &out));
  KVASIR_RETURN_IF_ERROR(CheckReasoning(reader, &out));
  const Json* content = reader.Get("content");
  if (content == nullptr) {
    if (out["role"] != "assistant") return FieldError(path + ".content", "is required");
    out["content"] = nullptr;
  } else if (content->is_array()) {
    KVASIR_ASSIGN_OR_RETURN(out["content"], JoinParts(*content, path + ".content"));
  } else if (!content->is_string()) {
    return FieldError(path + ".content", "must be a string or an array of content parts");
  }
  return out;
}

}  // namespace

StatusOr<Json> NormalizeMessages(const Json& messages) {
  if (!messages.is_array()) return FieldError("messages", "must be an array of messages");
  if (messages.empty()) return FieldError("messages", "must not be empty");
  Json out = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    KVASIR_ASSIGN_OR_RETURN(Json message,
                            NormalizeMessage(messages[i], fmt::format("messages[{}]", i)));
    out.push_back(std::move(message));
  }
  return out;
}

}  // namespace kvasir::api
