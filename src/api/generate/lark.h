// Pieces of grammars in llguidance's Lark dialect.
#pragma once

#include <string>
#include <string_view>

#include "api/protocol/json.h"

namespace kvasir::api {

// A string literal that matches `text`.
std::string LarkString(std::string_view text);

// A regular expression between slashes that matches what `regex` does.
std::string LarkRegex(std::string_view regex);

// What matches the JSON values of a schema, an object.
std::string LarkSchema(const Json& schema);

}  // namespace kvasir::api
