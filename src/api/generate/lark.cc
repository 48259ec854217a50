#include "api/generate/lark.h"

#include "grammar/spellings.h"

namespace kvasir::api {

std::string LarkString(std::string_view text) {
  // A literal is a JSON string; control characters, DEL among them, must be escaped in it.
  return nlohmann::json(text).dump(-1, ' ', /*ensure_ascii=*/true,
                                   nlohmann::json::error_handler_t::replace);
}

std::string LarkRegex(std::string_view regex) {
  if (regex.empty()) return LarkString("");  // two slashes begin a comment
  std::string out = "/";
  for (size_t i = 0; i < regex.size(); ++i) {
    if (regex[i] == '\\' && i + 1 < regex.size()) {
      out += regex.substr(i++, 2);
    } else if (regex[i] == '/') {
      out += "\\/";
    } else {
      out += regex[i];
    }
  }
  return out + "/";
}

std::string LarkSchema(const Json& schema) { return *grammar::SchemaInLark(Dump(schema)); }

}  // namespace kvasir::api
