#include "text/call_object.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace kvasir::text {
namespace {

// What the JSON string `text` says; empty where it says nothing.
std::string Unquote(const std::string& text) {
  const nlohmann::json value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  return value.is_string() ? value.get<std::string>() : "";
}

}  // namespace

CallObject::Step CallObject::Add(char byte, std::string* arguments) {
  switch (state_) {
    case State::kOpen:
      state_ = State::kFirstKey;
      return byte == '{' ? Step::kMore : Step::kBad;
    case State::kFirstKey:
    case State::kKey:
      return BeginKey(byte);
    case State::kInKey:
      return InKey(byte);
    case State::kColon:
      if (byte == ':') state_ = State::kBeforeValue;
      return byte == ':' || IsJsonSpace(byte) ? Step::kMore : Step::kBad;
    case State::kBeforeValue:
      return IsJsonSpace(byte) ? Step::kMore : BeginValue(byte, arguments);
    case State::kValue:
      return InValue(byte, arguments);
    case State::kAfterValue:
      return AfterValue(byte, arguments);
  }
  return Step::kBad;
}

// An object without members names no function, so a brace can't come here.
CallObject::Step CallObject::BeginKey(char byte) {
  if (IsJsonSpace(byte)) return Step::kMore;
  if (byte != '"') return Step::kBad;
  state_ = State::kInKey;
  scanner_ = {};
  text_.clear();
  return InKey(byte);
}

CallObject::Step CallObject::InKey(char byte) {
  text_ += byte;
  const JsonScanner::Step step = scanner_.Add(byte);
  if (step == JsonScanner::Step::kBad) return Step::kBad;
  if (step == JsonScanner::Step::kMore) return Step::kMore;
  const std::string key = Unquote(text_);
  member_ = Member::kOther;
  if (key == "name") member_ = Member::kName;
  if (key == "arguments" || key == "parameters") member_ = Member::kArguments;
  const bool twice =
      member_ == Member::kName ? !name_.empty() : member_ == Member::kArguments && has_arguments_;
  state_ = State::kColon;
  return twice ? Step::kBad : Step::kMore;
}

CallObject::Step CallObject::BeginValue(char byte, std::string* arguments) {
  if (member_ == Member::kName && byte != '"') return Step::kBad;
  if (member_ == Member::kArguments) {
    if (byte != '{') return Step::kBad;
    has_arguments_ = true;
  }
  state_ = State::kValue;
  scanner_ = {};
  text_.clear();
  return InValue(byte, arguments);
}

CallObject::Step CallObject::InValue(char byte, std::string* arguments) {
  const JsonScanner::Step step = scanner_.Add(byte);
  if (step == JsonScanner::Step::kBad) return Step::kBad;
  if (step == JsonScanner::Step::kEndBefore) {
    state_ = State::kAfterValue;
    return AfterValue(byte, arguments);
  }
  if (member_ == Member::kName) text_ += byte;
  if (member_ == Member::kArguments) *(name_.empty() ? &early_ : arguments) += byte;
  return step == JsonScanner::Step::kEnd ? EndValue(arguments) : Step::kMore;
}

CallObject::Step CallObject::EndValue(std::string* arguments) {
  state_ = State::kAfterValue;
  if (member_ != Member::kName) return Step::kMore;
  name_ = Unquote(text_);
  if (name_.empty()) return Step::kBad;
  *arguments += std::exchange(early_, {});
  return Step::kMore;
}

CallObject::Step CallObject::AfterValue(char byte, std::string* arguments) {
  if (IsJsonSpace(byte)) return Step::kMore;
  if (byte == ',') {
    state_ = State::kKey;
    return Step::kMore;
  }
  if (byte != '}' || name_.empty()) return Step::kBad;
  if (!has_arguments_) *arguments += "{}";
  return Step::kEnd;
}

}  // namespace kvasir::text
