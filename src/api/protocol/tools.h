// The tools of a chat request, and which of them the model may or must call.
#pragma once

#include <string>
#include <vector>

#include "api/protocol/json.h"

namespace kvasir::api {

struct Tool {
  std::string name;
  Json parameters;      // a JSON schema whose values are objects
  bool strict = false;  // the arguments must match it, whatever the choice
};

enum class ToolChoice { kNone, kAuto, kRequired, kNamed };

struct ToolOptions {
  std::vector<Tool> tools;
  Json definitions;  // as the client wrote them, for the template; null where it must not show any
  ToolChoice choice = ToolChoice::kNone;
  std::string named;     // the function that kNamed names, one of the tools
  bool parallel = true;  // several calls in one answer
};

// Errors name the field. Without tools there is nothing to choose: only "none" and "auto" are taken
// then, and both mean kNone.
void ReadTools(FieldReader& reader, ToolOptions* options);

}  // namespace kvasir::api
