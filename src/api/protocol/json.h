// JSON from and to clients: bounded parsing, and a reader of typed fields whose errors name the
// field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/sampling_params.h"

namespace kvasir::api {

using Json = nlohmann::ordered_json;

// Parses a request body: one JSON object in UTF-8. Refuses what would cost more than its size
// (nesting deeper than 64, millions of values, objects with thousands of members) and numbers
// outside double's range. Of duplicate keys the last counts, as in the OpenAI API.
StatusOr<Json> ParseJsonObject(std::string_view body);

// Compact JSON. Bytes that are no UTF-8 become U+FFFD.
std::string Dump(const Json& value);

// Reads the fields of one object. An absent or null field leaves its target as it was. The first
// error is kept and makes every later read a no-op, so that a caller checks once, at the end.
class FieldReader {
 public:
  // `path` is what the object is called in errors ("" for the body, "messages[2]" for a message).
  FieldReader(const Json& object, std::string path);

  void Read(std::string_view name, bool* out);
  void Read(std::string_view name, int32_t* out);  // integral numbers in [-2^31, 2^31)
  void Read(std::string_view name, int64_t* out);
  void Read(std::string_view name, float* out);
  void Read(std::string_view name, std::string* out);
  void Read(std::string_view name, std::vector<TokenId>* out);
  // One string counts as a list of one.
  void ReadStrings(std::string_view name, std::vector<std::string>* out);

  // The value, or nullptr when the field is absent or null.
  const Json* Get(std::string_view name) const;
  std::string Path(std::string_view name) const;

  void Fail(std::string_view name, std::string_view message);
  void Fail(const Status& status);  // an error that names its field already
  const Status& status() const { return status_; }

 private:
  const Json* Begin(std::string_view name) const;  // Get, or nullptr after an error

  const Json& object_;
  std::string path_;
  Status status_;
};

// The integer in `value`, when it holds one that fits (10.0 counts as 10).
bool AsInteger(const Json& value, int64_t* out);

// A list of token ids; `path` is what it is called in errors.
StatusOr<std::vector<TokenId>> AsTokenIds(const Json& value, const std::string& path);

}  // namespace kvasir::api
