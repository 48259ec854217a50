// The messages of a chat request, checked and brought to the one form that templates understand.
#pragma once

#include "api/protocol/json.h"
#include "base/status.h"

namespace kvasir::api {

// Every message is an object with a known role. Content becomes a string (text parts are joined by
// newlines) or stays null where the role allows it; parts that are no text are refused by name. The
// role "developer" becomes "system", which is what templates call it. The tool calls of a message
// are calls of named functions, or left out where there are none; its reasoning_content is a
// string. Other members stay as they are: templates may use them.
StatusOr<Json> NormalizeMessages(const Json& messages);

}  // namespace kvasir::api
