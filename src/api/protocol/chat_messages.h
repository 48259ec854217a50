// The messages of a chat request, checked and brought to the one form that templates understand.
#pragma once

#include <string>

#include "api/protocol/fields.h"
#include "base/status.h"

namespace kvasir::api {

// `messages` of chat completions. Every message is an object with a known role. Content becomes a
// string (text parts are joined by newlines) or stays null where the role allows it; parts that are
// no text are refused by name. The role "developer" becomes "system", which is what templates call
// it. The tool calls of a message are calls of named functions, or left out where there are none;
// its reasoning_content is a string. Other members stay as they are: templates may use them.
void ReadMessages(FieldReader& reader, Json* messages);

// A content of text, as any of the protocols spells it: a string, or parts of which each is a
// string or an object with a type. Parts are joined by newlines.
void ReadContent(FieldReader& reader, const char* name, std::string* content);

// What to say of a part that is no text.
std::string UnsupportedPart(const std::string& type);

}  // namespace kvasir::api
