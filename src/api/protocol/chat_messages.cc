#include "api/protocol/chat_messages.h"

#include <fmt/format.h>

#include <utility>

#include "api/protocol/error.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxMessages = 65536;
constexpr size_t kMaxCalls = 1024;

// The text parts of the OpenAI APIs, the refusal among them.
Json PartSchema() {
  const Json text = {{"type", "object"},
                     {"properties",
                      {{"type", {{"enum", {"text", "input_text", "output_text"}}}},
                       {"text", {{"type", "string"}}}}},
                     {"required", {"type", "text"}}};
  const Json refusal = {
      {"type", "object"},
      {"properties",
       {{"type", {{"enum", Json::array({"refusal"})}}}, {"refusal", {{"type", "string"}}}}},
      {"required", {"type", "refusal"}}};
  return AnyOf({{{"type", "string"}}, text, refusal});
}

Json ContentSchema() { return AnyOf({{{"type", "string"}}, ArrayOf(PartSchema())}); }

StatusOr<std::string> PartText(const Json& part, const std::string& path) {
  if (part.is_string()) return part.get<std::string>();
  if (!part.is_object()) return FieldError(path, "must be an object with a type");
  FieldReader reader(part, path);
  std::string type, text;
  reader.Require("type");
  reader.Read("type", &type);
  KVASIR_RETURN_IF_ERROR(reader.status());
  if (type != "text" && type != "input_text" && type != "output_text" && type != "refusal") {
    return FieldError(path + ".type", UnsupportedPart(type));
  }
  const char* field = type == "refusal" ? "refusal" : "text";
  reader.Require(field);
  reader.Read(field, &text);
  KVASIR_RETURN_IF_ERROR(reader.status());
  return text;
}

StatusOr<std::string> ContentText(const Json& content, const std::string& path) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    return FieldError(path, "must be a string or an array of content parts");
  }
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    KVASIR_ASSIGN_OR_RETURN(const std::string part,
                            PartText(content[i], fmt::format("{}[{}]", path, i)));
    if (i > 0) text += '\n';
    text += part;
  }
  return text;
}

void ReadRole(FieldReader& reader, Json* message) {
  const char* role = "";
  reader.Require("role");
  reader.ReadWord("role",
                  {{"system", "system"},
                   {"developer", "system"},
                   {"user", "user"},
                   {"assistant", "assistant"},
                   {"tool", "tool"},
                   {"function", "function"}},
                  &role);
  (*message)["role"] = role;
}

void ReadCall(FieldReader& call) {
  call.Require("function");
  call.ReadObject("function", [](FieldReader& function) {
    std::string name;
    function.Require("name");
    function.Read("name", &name);
    if (name.empty()) function.Fail("name", "is required");
    function.ReadValue(
        "arguments", [] { return OneOfTypes({"string", "object"}); },
        [&](const Json& arguments) {
          if (arguments.is_string() || arguments.is_object()) return;
          function.Fail("arguments", "must be a string that holds JSON");
        });
  });
}

// Templates ask whether a message has calls, not how many.
void ReadCalls(FieldReader& reader, Json* message) {
  size_t calls = 0;
  reader.ReadObjects("tool_calls", kMaxCalls, [&](FieldReader& call, size_t) {
    ReadCall(call);
    ++calls;
  });
  if (calls == 0) message->erase("tool_calls");
}

void ReadMessage(FieldReader& reader, Json* message) {
  *message = reader.object();
  ReadRole(reader, message);
  ReadCalls(reader, message);
  std::string reasoning;
  reader.Read("reasoning_content", &reasoning);
  if (!reader.Has("reasoning_content")) message->erase("reasoning_content");
  std::string content;
  ReadContent(reader, "content", &content);
  if (reader.Has("content")) {
    (*message)["content"] = std::move(content);
  } else {
    if ((*message)["role"] != "assistant") reader.Fail("content", "is required");
    (*message)["content"] = nullptr;
  }
}

}  // namespace

std::string UnsupportedPart(const std::string& type) {
  return fmt::format("'{}' parts are not supported: this model takes text only",
                     type.substr(0, 64));
}

void ReadContent(FieldReader& reader, const char* name, std::string* content) {
  reader.ReadValue(name, ContentSchema, [&](const Json& value) {
    StatusOr<std::string> text = ContentText(value, reader.Path(name));
    if (!text.ok()) return reader.Fail(text.status());
    *content = *std::move(text);
  });
}

void ReadMessages(FieldReader& reader, Json* messages) {
  *messages = Json::array();
  reader.Require("messages");
  reader.ReadObjects("messages", kMaxMessages, [&](FieldReader& message, size_t) {
    Json out;
    ReadMessage(message, &out);
    messages->push_back(std::move(out));
  });
  reader.RequireItems("messages");
}

}  // namespace kvasir::api
