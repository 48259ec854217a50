#include "text/json_scanner.h"

namespace kvasir::text {
namespace {

constexpr size_t kMaxDepth = 64;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

}  // namespace

JsonScanner::Step JsonScanner::Add(char byte) {
  switch (state_) {
    case State::kValue:
      return IsJsonSpace(byte) ? Step::kMore : BeginValue(byte);
    case State::kFirstElement:
      if (byte == ']') return Close(byte);
      return IsJsonSpace(byte) ? Step::kMore : BeginValue(byte);
    case State::kFirstKey:
      if (byte == '}') return Close(byte);
      [[fallthrough]];
    case State::kKey:
      if (IsJsonSpace(byte)) return Step::kMore;
      if (byte != '"') return Step::kBad;
      is_key_ = true;
      state_ = State::kString;
      return Step::kMore;
    case State::kColon:
      if (byte == ':') state_ = State::kValue;
      return byte == ':' || IsJsonSpace(byte) ? Step::kMore : Step::kBad;
    case State::kAfterValue:
      return AfterValue(byte);
    case State::kString:
    case State::kEscape:
    case State::kHex:
      return InString(byte);
    case State::kLiteral:
      if (byte != literal_.front()) return Step::kBad;
      literal_.remove_prefix(1);
      return literal_.empty() ? EndValue() : Step::kMore;
    default:
      return InNumber(byte);
  }
}

JsonScanner::Step JsonScanner::BeginValue(char byte) {
  const auto go = [this](State state) {
    state_ = state;
    return Step::kMore;
  };
  const auto literal = [&](std::string_view rest) {
    literal_ = rest;
    return go(State::kLiteral);
  };
  switch (byte) {
    case '{':
      return Open('}', State::kFirstKey);
    case '[':
      return Open(']', State::kFirstElement);
    case '"':
      is_key_ = false;
      return go(State::kString);
    case 't':
      return literal("rue");
    case 'f':
      return literal("alse");
    case 'n':
      return literal("ull");
    case '-':
      return go(State::kMinus);
    case '0':
      return go(State::kZero);
    default:
      return IsDigit(byte) ? go(State::kInteger) : Step::kBad;
  }
}

JsonScanner::Step JsonScanner::Open(char close, State first) {
  if (open_brackets_.size() == kMaxDepth) return Step::kBad;
  open_brackets_ += close;
  state_ = first;
  return Step::kMore;
}

JsonScanner::Step JsonScanner::Close(char byte) {
  if (open_brackets_.back() != byte) return Step::kBad;
  open_brackets_.pop_back();
  return EndValue();
}

JsonScanner::Step JsonScanner::AfterValue(char byte) {
  if (IsJsonSpace(byte)) return Step::kMore;
  if (byte != ',') return byte == '}' || byte == ']' ? Close(byte) : Step::kBad;
  state_ = open_brackets_.back() == '}' ? State::kKey : State::kValue;
  return Step::kMore;
}

JsonScanner::Step JsonScanner::EndValue() {
  state_ = State::kAfterValue;
  return open_brackets_.empty() ? Step::kEnd : Step::kMore;
}

JsonScanner::Step JsonScanner::InString(char byte) {
  constexpr std::string_view kEscapes = "\"\\/bfnrt";
  if (state_ == State::kHex) {
    if (!IsHexDigit(byte)) return Step::kBad;
    if (--hex_digits_ == 0) state_ = State::kString;
    return Step::kMore;
  }
  if (state_ == State::kEscape) {
    hex_digits_ = 4;
    state_ = byte == 'u' ? State::kHex : State::kString;
    return byte == 'u' || kEscapes.find(byte) != kEscapes.npos ? Step::kMore : Step::kBad;
  }
  if (static_cast<unsigned char>(byte) < 0x20) return Step::kBad;
  if (byte == '\\') state_ = State::kEscape;
  if (byte != '"') return Step::kMore;
  if (!is_key_) return EndValue();
  state_ = State::kColon;
  return Step::kMore;
}

JsonScanner::Step JsonScanner::InNumber(char byte) {
  const auto go = [this](State state) {
    state_ = state;
    return Step::kMore;
  };
  const bool digit = IsDigit(byte);
  const bool exponent = byte == 'e' || byte == 'E';
  switch (state_) {
    case State::kMinus:
      if (!digit) return Step::kBad;
      return go(byte == '0' ? State::kZero : State::kInteger);
    case State::kZero:
    case State::kInteger:
      if (digit && state_ == State::kInteger) return Step::kMore;
      if (digit) return Step::kBad;
      if (byte == '.') return go(State::kPoint);
      return exponent ? go(State::kExponent) : EndNumber(byte);
    case State::kPoint:
      return digit ? go(State::kFraction) : Step::kBad;
    case State::kFraction:
      if (digit) return Step::kMore;
      return exponent ? go(State::kExponent) : EndNumber(byte);
    case State::kExponent:
      if (byte == '+' || byte == '-') return go(State::kExponentSign);
      [[fallthrough]];
    case State::kExponentSign:
      return digit ? go(State::kExponentDigits) : Step::kBad;
    default:
      return digit ? Step::kMore : EndNumber(byte);
  }
}

// Only what stands behind a number tells that it is over.
JsonScanner::Step JsonScanner::EndNumber(char byte) {
  return EndValue() == Step::kEnd ? Step::kEndBefore : AfterValue(byte);
}

}  // namespace kvasir::text
