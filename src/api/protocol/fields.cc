#include "api/protocol/fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "api/protocol/error.h"

namespace kvasir::api {
namespace {

std::string Expected(const char* what, const Json& value) {
  return absl::StrCat("must be ", what, ", not ", TypeName(value));
}

// `schema`, or null, which counts as absent.
Json Nullable(Json schema) {
  if (schema.contains("anyOf")) {
    schema["anyOf"].push_back({{"type", "null"}});
  } else if (schema.contains("enum")) {
    schema["enum"].push_back(nullptr);
  } else if (schema.contains("type")) {
    Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    types.push_back("null");
    schema["type"] = std::move(types);
  }
  return schema;
}

bool Allows(const Json& schema, const char* type) {
  const Json types = schema.value("type", Json());
  return types == type ||
         (types.is_array() && std::find(types.begin(), types.end(), type) != types.end());
}

void SetNotEmpty(Json& schema) {
  if (Allows(schema, "array")) schema["minItems"] = 1;
  if (Allows(schema, "string")) schema["minLength"] = 1;
  if (!schema.contains("anyOf")) return;
  for (Json& one : schema["anyOf"]) SetNotEmpty(one);
}

Json OfType(const char* type) { return {{"type", type}}; }

}  // namespace

Json OneOfTypes(std::initializer_list<const char*> types) {
  Json schema;
  schema["type"] = Json::array();
  for (const char* type : types) schema["type"].push_back(type);
  return schema;
}

Json ArrayOf(Json items) {
  Json schema = OfType("array");
  schema["items"] = std::move(items);
  return schema;
}

Json AnyOf(std::initializer_list<Json> schemas) {
  Json schema;
  schema["anyOf"] = Json::array();
  for (const Json& one : schemas) schema["anyOf"].push_back(one);
  return schema;
}

bool AsInteger(const Json& value, int64_t* out) {
  if (value.is_number_unsigned()) {
    const uint64_t v = value.get<uint64_t>();
    if (v > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
    *out = static_cast<int64_t>(v);
    return true;
  }
  if (value.is_number_integer()) {
    *out = value.get<int64_t>();
    return true;
  }
  if (!value.is_number_float()) return false;
  const double v = value.get<double>();
  if (!(std::abs(v) <= 0x1p53) || v != std::floor(v)) return false;
  *out = static_cast<int64_t>(v);
  return true;
}

StatusOr<std::vector<TokenId>> AsTokenIds(const Json& value, const std::string& path) {
  if (!value.is_array()) return FieldError(path, Expected("an array of token ids", value));
  std::vector<TokenId> ids;
  ids.reserve(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    int64_t id = 0;
    if (!AsInteger(value[i], &id) || id < 0 || id > std::numeric_limits<TokenId>::max()) {
      return FieldError(absl::StrCat(path, "[", i, "]"), "must be a token id");
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

Json TokenIdsSchema() {
  return ArrayOf({{"type", "integer"}, {"minimum", 0}, {"maximum", 0x7fffffff}});
}

FieldReader::FieldReader(const Json& object, std::string path)
    : object_(&object), schema_(nullptr), path_(std::move(path)) {}

FieldReader::FieldReader(Json* schema) : object_(nullptr), schema_(schema) {
  *schema_ = {{"type", "object"}, {"properties", Json::object()}};
}

const Json* FieldReader::Get(std::string_view name) const {
  if (object_ == nullptr) return nullptr;
  const auto it = object_->find(std::string(name));
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

const Json& FieldReader::object() const {
  static const Json empty = Json::object();
  return object_ == nullptr ? empty : *object_;
}

const Json* FieldReader::Begin(std::string_view name, absl::FunctionRef<Json()> schema) {
  if (schema_ == nullptr) return status_.ok() ? Get(name) : nullptr;
  const Json required = schema_->value("required", Json::array());
  const bool needed = std::find(required.begin(), required.end(), name) != required.end();
  (*schema_)["properties"][std::string(name)] = needed ? schema() : Nullable(schema());
  return nullptr;
}

std::string FieldReader::Path(std::string_view name) const {
  return path_.empty() ? std::string(name) : absl::StrCat(path_, ".", std::string(name));
}

void FieldReader::Fail(std::string_view name, std::string_view message) {
  Fail(FieldError(Path(name), message));
}

void FieldReader::Fail(const Status& status) {
  if (schema_ == nullptr && status_.ok()) status_ = status;
}

void FieldReader::Require(std::string_view name) {
  if (schema_ != nullptr) {
    (*schema_)["required"].push_back(std::string(name));
  } else if (!Has(name)) {
    Fail(name, "is required");
  }
}

void FieldReader::RequireItems(std::string_view name) {
  if (schema_ != nullptr) return SetNotEmpty((*schema_)["properties"][std::string(name)]);
  const Json* value = Get(name);
  if (value == nullptr) return;
  const bool empty = value->is_string() ? value->get_ref<const std::string&>().empty()
                                        : value->is_array() && value->empty();
  if (empty) Fail(name, "must not be empty");
}

void FieldReader::Read(std::string_view name, bool* out) {
  const Json* value = Begin(name, [] { return OfType("boolean"); });
  if (value == nullptr) return;
  if (!value->is_boolean()) return Fail(name, Expected("a boolean", *value));
  *out = value->get<bool>();
}

const Json* FieldReader::BeginNumber(std::string_view name, const char* type, const char* expected,
                                     const Range& range) {
  const Json* value = Begin(name, [&] {
    Json schema = OfType(type);
    const auto number = [&](double v) {
      return *type == 'i' ? Json(static_cast<int64_t>(v)) : Json(v);
    };
    if (std::isfinite(range.min)) schema["minimum"] = number(range.min);
    if (std::isfinite(range.max)) schema["maximum"] = number(range.max);
    return schema;
  });
  if (value == nullptr || value->is_number()) return value;
  Fail(name, Expected(expected, *value));
  return nullptr;
}

void FieldReader::CheckRange(std::string_view name, double value, const Range& range) {
  if (value >= range.min && value <= range.max) return;
  if (!std::isfinite(range.max)) return Fail(name, fmt::format("must be at least {}", range.min));
  if (!std::isfinite(range.min)) return Fail(name, fmt::format("must be at most {}", range.max));
  Fail(name, fmt::format("must be in [{}, {}]", range.min, range.max));
}

void FieldReader::Read(std::string_view name, int64_t* out, Range range) {
  const Json* value = BeginNumber(name, "integer", "an integer", range);
  if (value == nullptr) return;
  int64_t integer = 0;
  if (!AsInteger(*value, &integer)) return Fail(name, "must be a 64-bit integer");
  CheckRange(name, static_cast<double>(integer), range);
  if (ok()) *out = integer;
}

void FieldReader::Read(std::string_view name, int32_t* out, Range range) {
  constexpr double kMin = std::numeric_limits<int32_t>::min();
  constexpr double kMax = std::numeric_limits<int32_t>::max();
  int64_t value = *out;
  Read(name, &value, {std::max(range.min, kMin), std::min(range.max, kMax)});
  *out = static_cast<int32_t>(value);
}

void FieldReader::Read(std::string_view name, std::optional<int32_t>* out, Range range) {
  int32_t value = 0;
  Read(name, &value, range);
  if (ok() && Has(name)) *out = value;
}

void FieldReader::Read(std::string_view name, float* out, Range range) {
  const Json* value = BeginNumber(name, "number", "a number", range);
  if (value == nullptr) return;
  CheckRange(name, value->get<double>(), range);
  if (ok()) *out = static_cast<float>(value->get<double>());
}

void FieldReader::Read(std::string_view name, std::string* out) {
  const Json* value = Begin(name, [] { return OfType("string"); });
  if (value == nullptr) return;
  if (!value->is_string()) return Fail(name, Expected("a string", *value));
  *out = value->get<std::string>();
}

void FieldReader::Read(std::string_view name, std::vector<TokenId>* out) {
  const Json* value = Begin(name, TokenIdsSchema);
  if (value == nullptr) return;
  StatusOr<std::vector<TokenId>> ids = AsTokenIds(*value, Path(name));
  if (!ids.ok()) return Fail(ids.status());
  *out = *std::move(ids);
}

void FieldReader::ReadStrings(std::string_view name, std::vector<std::string>* out) {
  const Json* value =
      Begin(name, [] { return AnyOf({OfType("string"), ArrayOf(OfType("string"))}); });
  if (value == nullptr) return;
  if (value->is_string()) {
    *out = {value->get<std::string>()};
    return;
  }
  if (!value->is_array()) return Fail(name, Expected("a string or an array of strings", *value));
  std::vector<std::string> strings;
  for (size_t i = 0; i < value->size(); ++i) {
    const Json& item = (*value)[i];
    if (!item.is_string()) {
      return Fail(absl::StrCat(std::string(name), "[", i, "]"), Expected("a string", item));
    }
    strings.push_back(item.get<std::string>());
  }
  *out = std::move(strings);
}

int FieldReader::WordIndex(std::string_view name, const std::vector<const char*>& words) {
  const Json* value = Begin(name, [&] { return Json{{"enum", words}}; });
  if (value == nullptr) return -1;
  for (size_t i = 0; i < words.size(); ++i) {
    if (*value == words[i]) return static_cast<int>(i);
  }
  Fail(name, words.size() == 1 ? fmt::format("must be {}", words[0])
                               : fmt::format("must be one of {}", fmt::join(words, ", ")));
  return -1;
}

bool FieldReader::ReadObject(std::string_view name, absl::FunctionRef<void(FieldReader&)> read) {
  const Json* value = Begin(name, [&] {
    Json schema;
    FieldReader inner(&schema);
    read(inner);
    return schema;
  });
  if (value == nullptr) return false;
  if (!value->is_object()) {
    Fail(name, Expected("an object", *value));
    return false;
  }
  FieldReader inner(*value, Path(name));
  read(inner);
  if (!inner.ok()) Fail(inner.status());
  return true;
}

bool FieldReader::ReadObjects(std::string_view name, size_t max_size,
                              absl::FunctionRef<void(FieldReader&, size_t)> read) {
  const Json* value = Begin(name, [&] {
    Json items;
    FieldReader inner(&items);
    read(inner, 0);
    Json schema = ArrayOf(std::move(items));
    schema["maxItems"] = max_size;
    return schema;
  });
  if (value == nullptr) return false;
  if (!value->is_array()) {
    Fail(name, Expected("an array of objects", *value));
    return false;
  }
  if (value->size() > max_size) Fail(name, fmt::format("holds more than {} objects", max_size));
  for (size_t i = 0; ok() && i < value->size(); ++i) {
    const std::string item = fmt::format("{}[{}]", name, i);
    if (!(*value)[i].is_object()) {
      Fail(item, Expected("an object", (*value)[i]));
      return true;
    }
    FieldReader inner((*value)[i], Path(item));
    read(inner, i);
    if (!inner.ok()) Fail(inner.status());
  }
  return true;
}

void FieldReader::ReadValue(std::string_view name, absl::FunctionRef<Json()> schema,
                            absl::FunctionRef<void(const Json&)> read) {
  if (const Json* value = Begin(name, schema)) read(*value);
}

}  // namespace kvasir::api
