// Pieces of grammars in llguidance's Lark dialect.
#pragma once

#include <string>
#include <string_view>

namespace kvasir::api {

// A string literal that matches `text`.
std::string LarkString(std::string_view text);

// A regular expression between slashes that matches what `regex` does.
std::string LarkRegex(std::string_view regex);

// What matches the JSON values of a schema.
std::string LarkSchema(std::string_view schema);

}  // namespace kvasir::api
