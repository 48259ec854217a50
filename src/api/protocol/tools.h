// The tools of a chat request, and which of them the model may or must call.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/protocol/fields.h"

namespace kvasir::api {

struct Tool {
  std::string name;
  Json parameters;      // a JSON schema whose values are objects
  bool strict = false;  // the arguments must match it, whatever the choice
};

enum class ToolChoice { kNone, kAuto, kRequired, kNamed };

struct ToolOptions {
  std::vector<Tool> tools;
  Json definitions;  // in the form of chat completions, for the template; null: it must show none
  ToolChoice choice = ToolChoice::kNone;
  std::string named;     // the function that kNamed names, one of the tools
  bool parallel = true;  // several calls in one answer
};

// `tools`, `tool_choice` and `parallel_tool_calls` of chat completions. Errors name the field.
// Without tools there is nothing to choose: only "none" and "auto" are taken then, and both mean
// kNone.
void ReadTools(FieldReader& reader, ToolOptions* options);

// The parts of that, for protocols that spell tools in another way.

// The fields of one function; its schema is called `parameters_name`.
Tool ReadFunction(FieldReader& reader, const char* parameters_name);
// Adds a tool whose name no other has, and its definition.
void AddTool(FieldReader& reader, const char* name_field, Tool tool, Json definition,
             ToolOptions* options);
// The definition of a function as chat completions spell it.
Json FunctionDefinition(const Tool& tool, const std::string& description);
// What the client chose, if anything. `name_path` is where the name of kNamed stands.
void Choose(FieldReader& reader, std::optional<ToolChoice> choice, const std::string& name_path,
            ToolOptions* options);

}  // namespace kvasir::api
