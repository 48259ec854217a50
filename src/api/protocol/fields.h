// The fields of one JSON object. A reader either reads an object into typed values, with errors
// that name the field, or describes the object as JSON Schema: one function says what a body holds,
// and both the server's checks and /openapi.json come from it. Such a function must therefore ask
// for every field in every case; what it does with the values is of no account to a description.
#pragma once

#include <absl/functional/function_ref.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/protocol/json.h"
#include "base/status.h"
#include "core/sampling_params.h"

namespace kvasir::api {

// Of a number, both inclusive.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
};

// Schemas for fields that no plain Read covers.
Json OneOfTypes(std::initializer_list<const char*> types);
Json ArrayOf(Json items);
Json AnyOf(std::initializer_list<Json> schemas);

// An absent or null field leaves its target as it was. The first error is kept and makes every
// later read a no-op, so that a caller checks once, at the end. Not thread-safe.
class FieldReader {
 public:
  // Reads. `path` is what the object is called in errors ("" for the body, "messages[2]" for a
  // message). `object` outlives the reader.
  FieldReader(const Json& object, std::string path);
  // Describes: fills in `schema`, which outlives the reader. Nothing is read, nothing fails.
  explicit FieldReader(Json* schema);

  void Read(std::string_view name, bool* out);
  void Read(std::string_view name, int32_t* out, Range range = {});
  void Read(std::string_view name, std::optional<int32_t>* out, Range range = {});
  void Read(std::string_view name, int64_t* out, Range range = {});
  void Read(std::string_view name, float* out, Range range = {});
  void Read(std::string_view name, std::string* out);
  void Read(std::string_view name, std::vector<TokenId>* out);
  // One string counts as a list of one.
  void ReadStrings(std::string_view name, std::vector<std::string>* out);

  // One of a few words. The error lists them.
  template <typename E>
  void ReadWord(std::string_view name, std::initializer_list<std::pair<const char*, E>> words,
                E* out) {
    std::vector<const char*> names;
    for (const auto& word : words) names.push_back(word.first);
    const int index = WordIndex(name, names);
    if (index >= 0) *out = words.begin()[index].second;
  }

  // An object of its own; true if it is there.
  bool ReadObject(std::string_view name, absl::FunctionRef<void(FieldReader&)> read);
  // An array of objects, read one by one; true if it is there.
  bool ReadObjects(std::string_view name, size_t max_size,
                   absl::FunctionRef<void(FieldReader&, size_t index)> read);
  // Any value, which `read` looks at; it may Fail this reader.
  void ReadValue(std::string_view name, absl::FunctionRef<Json()> schema,
                 absl::FunctionRef<void(const Json&)> read);

  // The field must be there. Said before it is read.
  void Require(std::string_view name);
  // A text or a list, if it is there, holds something. Said after it is read.
  void RequireItems(std::string_view name);

  // The value, or nullptr when the field is absent or null. Describes nothing: for second looks.
  const Json* Get(std::string_view name) const;
  // The whole object; an empty one while describing.
  const Json& object() const;
  bool Has(std::string_view name) const { return Get(name) != nullptr; }
  std::string Path(std::string_view name) const;

  void Fail(std::string_view name, std::string_view message);
  void Fail(const Status& status);  // an error that names its field already
  const Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }

 private:
  // The value to read, after the field was described or if nothing has failed; else nullptr.
  const Json* Begin(std::string_view name, absl::FunctionRef<Json()> schema);
  const Json* BeginNumber(std::string_view name, const char* type, const char* expected,
                          const Range& range);
  void CheckRange(std::string_view name, double value, const Range& range);
  int WordIndex(std::string_view name, const std::vector<const char*>& words);

  const Json* const object_;  // null while describing
  Json* const schema_;        // null while reading
  const std::string path_;
  Status status_;
};

// A whole body.
template <typename T>
StatusOr<T> ReadBody(const Json& body, void (*read)(FieldReader&, T*)) {
  T out;
  FieldReader reader(body, "");
  read(reader, &out);
  KVASIR_RETURN_IF_ERROR(reader.status());
  return out;
}

template <typename T>
Json DescribeBody(void (*read)(FieldReader&, T*)) {
  T out;
  Json schema;
  FieldReader reader(&schema);
  read(reader, &out);
  return schema;
}

// The integer in `value`, when it holds one that fits (10.0 counts as 10).
bool AsInteger(const Json& value, int64_t* out);

// A list of token ids; `path` is what it is called in errors.
StatusOr<std::vector<TokenId>> AsTokenIds(const Json& value, const std::string& path);
Json TokenIdsSchema();

}  // namespace kvasir::api
