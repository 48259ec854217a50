// JSON from and to clients: bounded parsing, and writing.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::api {

using Json = nlohmann::ordered_json;

// Parses a request body: one JSON object in UTF-8. Refuses what would cost more than its size
// (nesting deeper than 64, millions of values, objects with thousands of members) and numbers
// outside double's range. Of duplicate keys the last counts, as in the OpenAI API.
StatusOr<Json> ParseJsonObject(std::string_view body);

// Compact JSON. Bytes that are no UTF-8 become U+FFFD.
std::string Dump(const Json& value);

// "null", "a boolean", "an object", ... for messages.
const char* TypeName(const Json& value);

}  // namespace kvasir::api
