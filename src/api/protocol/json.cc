#include "api/protocol/json.h"

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

}  // namespace kvasir::api
