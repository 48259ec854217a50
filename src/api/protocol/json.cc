#include "api/protocol/json.h"

#include <cmath>
#include <limits>

#include "api/protocol/error.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = 1 << 21;  // each takes some tens of bytes of memory
// An ordered object finds a key by looking at all of them, so parsing costs members squared.
constexpr uint64_t kMaxKeyComparisons = uint64_t{1} << 26;

// One pass over the text, before anything is built: nesting and the cost of its objects. It looks
// only at punctuation and strings; that the text is JSON is for the parser to say.
Status CheckShape(std::string_view text) {
  std::vector<uint64_t> members;  // of each open bracket
  uint64_t comparisons = 0;
  size_t values = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '"':
        for (++i; i < text.size() && text[i] != '"'; ++i) {
          if (text[i] == '\\') ++i;
        }
        break;
      case '{':
      case '[':
        if (members.size() == kMaxDepth) {
          return absl::InvalidArgumentError(
              absl::StrCat("the JSON body nests deeper than ", kMaxDepth, " levels"));
        }
        members.push_back(0);
        ++values;
        break;
      case ',':
        ++values;
        break;
      case '}':
      case ']':
        if (!members.empty()) members.pop_back();
        break;
      case ':':
        if (!members.empty()) comparisons += members.back()++;
        if (comparisons > kMaxKeyComparisons) {
          return absl::InvalidArgumentError("the JSON body has objects with too many members");
        }
        break;
      default:
        break;
    }
    if (values > kMaxValues) {
      return absl::InvalidArgumentError(
          absl::StrCat("the JSON body holds more than ", kMaxValues, " values"));
    }
  }
  return absl::OkStatus();
}

const char* TypeName(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::boolean:
      return "a boolean";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::object:
      return "an object";
    default:
      return "a number";
  }
}

std::string Expected(const char* what, const Json& value) {
  return absl::StrCat("must be ", what, ", not ", TypeName(value));
}

}  // namespace

StatusOr<Json> ParseJsonObject(std::string_view body) {
  KVASIR_RETURN_IF_ERROR(CheckShape(body));
  try {
    Json value = Json::parse(body);
    if (!value.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the body must be a JSON object, not ", TypeName(value)));
    }
    return value;
  } catch (const Json::exception& e) {
    // The parser's text starts with its own error number: "[json.exception.parse_error.101] ...".
    std::string_view what = e.what();
    if (const size_t end = what.find("] "); end != std::string_view::npos)
      what.remove_prefix(end + 2);
    return absl::InvalidArgumentError(
        absl::StrCat("the body is not valid JSON: ", std::string(what.substr(0, 300))));
  }
}

std::string Dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
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

FieldReader::FieldReader(const Json& object, std::string path)
    : object_(object), path_(std::move(path)) {}

const Json* FieldReader::Get(std::string_view name) const {
  const auto it = object_.find(std::string(name));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

const Json* FieldReader::Begin(std::string_view name) const {
  return status_.ok() ? Get(name) : nullptr;
}

std::string FieldReader::Path(std::string_view name) const {
  return path_.empty() ? std::string(name) : absl::StrCat(path_, ".", std::string(name));
}

void FieldReader::Fail(std::string_view name, std::string_view message) {
  if (status_.ok()) status_ = FieldError(Path(name), message);
}

void FieldReader::Fail(const Status& status) {
  if (status_.ok()) status_ = status;
}

void FieldReader::Read(std::string_view name, bool* out) {
  const Json* value = Begin(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return Fail(name, Expected("a boolean", *value));
  *out = value->get<bool>();
}

void FieldReader::Read(std::string_view name, int64_t* out) {
  const Json* value = Begin(name);
  if (value == nullptr) return;
  if (!value->is_number()) return Fail(name, Expected("an integer", *value));
  if (!AsInteger(*value, out)) Fail(name, "must be a 64-bit integer");
}

void FieldReader::Read(std::string_view name, int32_t* out) {
  int64_t value = *out;
  Read(name, &value);
  if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max()) {
    return Fail(name, "is out of range");
  }
  *out = static_cast<int32_t>(value);
}

void FieldReader::Read(std::string_view name, float* out) {
  const Json* value = Begin(name);
  if (value == nullptr) return;
  if (!value->is_number()) return Fail(name, Expected("a number", *value));
  *out = static_cast<float>(value->get<double>());
}

void FieldReader::Read(std::string_view name, std::string* out) {
  const Json* value = Begin(name);
  if (value == nullptr) return;
  if (!value->is_string()) return Fail(name, Expected("a string", *value));
  *out = value->get<std::string>();
}

void FieldReader::Read(std::string_view name, std::vector<TokenId>* out) {
  const Json* value = Begin(name);
  if (value == nullptr) return;
  StatusOr<std::vector<TokenId>> ids = AsTokenIds(*value, Path(name));
  if (!ids.ok()) return Fail(ids.status());
  *out = *std::move(ids);
}

void FieldReader::ReadStrings(std::string_view name, std::vector<std::string>* out) {
  const Json* value = Begin(name);
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

}  // namespace kvasir::api
