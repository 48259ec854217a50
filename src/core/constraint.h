// What the whole output of a request must match. A value in the form that every engine compiles
// alike; the API's many spellings are turned into it at the front.
#pragma once

#include <string>

namespace kvasir {

struct Constraint {
  enum class Kind {
    kJsonSchema,  // a JSON schema
    kRegex,       // a regular expression that matches all of the output
    kLark,        // llguidance's Lark dialect; %json {...} embeds a schema
  };
  Kind kind = Kind::kJsonSchema;
  std::string text;

  friend bool operator==(const Constraint&, const Constraint&) = default;
};

}  // namespace kvasir
