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

Json NoParameters() {
  return {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
}

void TakeParameters(FieldReader& function, const char* name, const Json& value, Tool* tool) {
  if (!value.is_object()) return function.Fail(name, "must be a JSON schema: an object");
  tool->parameters = value;
  if (!value.contains("type")) tool->parameters["type"] = "object";
  if (tool->parameters["type"] == "object") return;
  function.Fail(fmt::format("{}.type", name), "must be object: arguments are one");
}

bool Has(const std::vector<Tool>& tools, const std::string& name) {
  return std::any_of(tools.begin(), tools.end(),
                     [&](const Tool& tool) { return tool.name == name; });
}

void ReadType(FieldReader& reader) {
  bool is_function = false;
  reader.Require("type");
  reader.ReadWord("type", {{"function", true}}, &is_function);
}

void ReadToolList(FieldReader& reader, ToolOptions* options) {
  reader.ReadObjects("tools", kMaxTools, [&](FieldReader& outer, size_t) {
    ReadType(outer);
    outer.Require("function");
    outer.ReadObject("function", [&](FieldReader& inner) {
      Tool tool = ReadFunction(inner, "parameters");
      if (inner.ok()) AddTool(inner, "name", std::move(tool), outer.object(), options);
    });
  });
}

// none, auto, required, or {"type": "function", "function": {"name": ...}}
Json ChoiceSchema() {
  Json named;
  FieldReader reader(&named);
  std::string name;
  ReadType(reader);
  reader.Require("function");
  reader.ReadObject("function", [&](FieldReader& function) {
    function.Require("name");
    function.Read("name", &name);
  });
  return AnyOf({{{"enum", {"none", "auto", "required"}}}, std::move(named)});
}

void TakeChoice(FieldReader& reader, const Json& value, ToolOptions* options) {
  const auto choose = [&](ToolChoice choice) { Choose(reader, choice, "", options); };
  if (value == "auto") return choose(ToolChoice::kAuto);
  if (value == "none") return choose(ToolChoice::kNone);
  if (value == "required") return choose(ToolChoice::kRequired);
  if (!value.is_object()) {
    return reader.Fail("tool_choice",
                       "must be none, auto, required or an object that names a function");
  }
  const Json* function = value.contains("function") ? &value["function"] : nullptr;
  if (value.value("type", Json()) != "function" || function == nullptr || !function->is_object()) {
    return reader.Fail("tool_choice", "must have type function and a function with its name");
  }
  FieldReader inner(*function, "tool_choice.function");
  inner.Require("name");
  inner.Read("name", &options->named);
  if (!inner.ok()) return reader.Fail(inner.status());
  Choose(reader, ToolChoice::kNamed, inner.Path("name"), options);
}

}  // namespace

Tool ReadFunction(FieldReader& reader, const char* parameters_name) {
  Tool tool;
  std::string description;
  reader.Require("name");
  reader.Read("name", &tool.name);
  reader.Read("description", &description);
  reader.Read("strict", &tool.strict);
  if (!IsNameLike(tool.name)) {
    reader.Fail("name", fmt::format("must be a text of 1 to {} bytes", kMaxNameBytes));
  }
  tool.parameters = NoParameters();
  reader.ReadValue(
      parameters_name, [] { return Json{{"type", "object"}}; },
      [&](const Json& value) { TakeParameters(reader, parameters_name, value, &tool); });
  return tool;
}

void AddTool(FieldReader& reader, const char* name_field, Tool tool, Json definition,
             ToolOptions* options) {
  if (Has(options->tools, tool.name)) {
    return reader.Fail(name_field, "is the name of an earlier tool");
  }
  options->tools.push_back(std::move(tool));
  options->definitions.push_back(std::move(definition));
}

Json FunctionDefinition(const Tool& tool, const std::string& description) {
  Json function = {{"name", tool.name}};
  if (!description.empty()) function["description"] = description;
  function["parameters"] = tool.parameters;
  return {{"type", "function"}, {"function", std::move(function)}};
}

void Choose(FieldReader& reader, std::optional<ToolChoice> choice, const std::string& name_path,
            ToolOptions* options) {
  const bool has_tools = !options->tools.empty();
  options->choice = choice.value_or(ToolChoice::kAuto);
  if (!has_tools) {
    if (options->choice == ToolChoice::kRequired || options->choice == ToolChoice::kNamed) {
      reader.Fail("tool_choice", "asks for a call, but there are no tools");
    }
    options->choice = ToolChoice::kNone;
  } else if (options->choice == ToolChoice::kNamed && !Has(options->tools, options->named)) {
    reader.Fail(FieldError(name_path, "is not the name of one of the tools"));
  }
  if (options->choice == ToolChoice::kNone) options->definitions = nullptr;
}

void ReadTools(FieldReader& reader, ToolOptions* options) {
  ReadToolList(reader, options);
  Choose(reader, std::nullopt, "", options);
  reader.ReadValue("tool_choice", ChoiceSchema,
                   [&](const Json& value) { TakeChoice(reader, value, options); });
  reader.Read("parallel_tool_calls", &options->parallel);
}

}  // namespace kvasir::api
