#include "api/protocol/tools.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "api/protocol/error.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxTools = 1024;
constexpr size_t kMaxNameBytes = 256;

bool IsNameLike(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::none_of(name.begin(), name.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

Status ReadParameters(const FieldReader& function, Tool* tool) {
  const Json* parameters = function.Get("parameters");
  const std::string path = function.Path("parameters");
  if (parameters == nullptr) {
    tool->parameters = {
        {"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
    return absl::OkStatus();
  }
  if (!parameters->is_object()) return FieldError(path, "must be a JSON schema: an object");
  tool->parameters = *parameters;
  if (!parameters->contains("type")) tool->parameters["type"] = "object";
  if (tool->parameters["type"] == "object") return absl::OkStatus();
  return FieldError(path + ".type", "must be object: arguments are one");
}

StatusOr<Tool> ReadTool(const Json& value, const std::string& path) {
  if (!value.is_object()) return FieldError(path, "must be an object");
  FieldReader outer(value, path);
  std::string type;
  outer.Read("type", &type);
  KVASIR_RETURN_IF_ERROR(outer.status());
  if (type != "function") return FieldError(path + ".type", "must be function");
  const Json* function = outer.Get("function");
  if (function == nullptr || !function->is_object()) {
    return FieldError(path + ".function", "must be an object");
  }
  Tool tool;
  FieldReader reader(*function, path + ".function");
  reader.Read("name", &tool.name);
  reader.Read("strict", &tool.strict);
  KVASIR_RETURN_IF_ERROR(reader.status());
  if (!IsNameLike(tool.name)) {
    return FieldError(reader.Path("name"),
                      fmt::format("must be a text of 1 to {} bytes", kMaxNameBytes));
  }
  KVASIR_RETURN_IF_ERROR(ReadParameters(reader, &tool));
  return tool;
}

bool Has(const std::vector<Tool>& tools, const std::string& name) {
  return std::any_of(tools.begin(), tools.end(),
                     [&](const Tool& tool) { return tool.name == name; });
}

void ReadToolList(FieldReader& reader, ToolOptions* options) {
  const Json* value = reader.Get("tools");
  if (value == nullptr) return;
  if (!value->is_array()) return reader.Fail("tools", "must be an array");
  if (value->size() > kMaxTools) {
    return reader.Fail("tools", fmt::format("holds more than {} tools", kMaxTools));
  }
  for (size_t i = 0; i < value->size(); ++i) {
    const std::string path = fmt::format("tools[{}]", i);
    StatusOr<Tool> tool = ReadTool((*value)[i], path);
    if (!tool.ok()) return reader.Fail(tool.status());
    if (Has(options->tools, tool->name)) {
      return reader.Fail(path + ".function.name", "is the name of an earlier tool");
    }
    options->tools.push_back(*std::move(tool));
  }
  if (!value->empty()) options->definitions = *value;
}

// {"type": "function", "function": {"name": ...}}
void ReadNamedChoice(FieldReader& reader, const Json& choice, ToolOptions* options) {
  constexpr const char* kExpected =
      "must be none, auto, required or an object with type function and a function's name";
  const FieldReader outer(choice, "tool_choice");
  const Json* type = outer.Get("type");
  const Json* function = outer.Get("function");
  if (type == nullptr || *type != "function" || function == nullptr || !function->is_object()) {
    return reader.Fail("tool_choice", kExpected);
  }
  FieldReader inner(*function, "tool_choice.function");
  inner.Read("name", &options->named);
  if (!inner.status().ok()) return reader.Fail(inner.status());
  if (!Has(options->tools, options->named)) {
    return reader.Fail("tool_choice.function.name", "is not the name of one of the tools");
  }
  options->choice = ToolChoice::kNamed;
}

void ReadChoice(FieldReader& reader, ToolOptions* options) {
  const bool has_tools = !options->tools.empty();
  const Json* value = reader.Get("tool_choice");
  if (value == nullptr || *value == "auto") {
    options->choice = has_tools ? ToolChoice::kAuto : ToolChoice::kNone;
  } else if (*value == "none") {
    options->choice = ToolChoice::kNone;
  } else if (!value->is_object() && *value != "required") {
    reader.Fail("tool_choice", "must be none, auto, required or an object that names a function");
  } else if (!has_tools) {
    reader.Fail("tool_choice", "asks for a call, but there are no tools");
  } else if (value->is_object()) {
    ReadNamedChoice(reader, *value, options);
  } else {
    options->choice = ToolChoice::kRequired;
  }
}

}  // namespace

void ReadTools(FieldReader& reader, ToolOptions* options) {
  if (!reader.status().ok()) return;
  ReadToolList(reader, options);
  if (!reader.status().ok()) return;
  ReadChoice(reader, options);
  reader.Read("parallel_tool_calls", &options->parallel);
  if (options->choice == ToolChoice::kNone) options->definitions = nullptr;
}

}  // namespace kvasir::api
