// Follows one JSON value byte by byte, to find where it ends.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir::text {

inline bool IsJsonSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Not thread-safe; one a value. Constant work a byte, one byte of memory a level of nesting. Checks
// all of RFC 8259's grammar except that strings are UTF-8 and surrogates come in pairs.
class JsonScanner {
 public:
  enum class Step {
    kMore,       // the byte belongs to the value, which goes on (or may)
    kEnd,        // the byte is the value's last
    kEndBefore,  // the value, a number, ended with the byte before: this one is not part of it
    kBad,        // no value goes on like that, or it nests deeper than 64 levels
  };
  // Must not be called again after the end or a bad byte.
  Step Add(char byte);

 private:
  enum class State : uint8_t {
    kValue,
    kFirstElement,  // of an array: a value or ]
    kFirstKey,      // of an object: a key or }
    kKey,
    kColon,
    kAfterValue,  // inside an object or array: a comma or its end
    kString,
    kEscape,
    kHex,
    kLiteral,
    kMinus,
    kZero,
    kInteger,
    kPoint,
    kFraction,
    kExponent,
    kExponentSign,
    kExponentDigits,
  };

  Step BeginValue(char byte);
  Step Open(char close, State first);
  Step Close(char byte);
  Step AfterValue(char byte);
  Step EndValue();
  Step InString(char byte);
  Step InNumber(char byte);
  Step EndNumber(char byte);

  State state_ = State::kValue;
  bool is_key_ = false;        // of the string at hand
  int hex_digits_ = 0;         // still to come
  std::string_view literal_;   // what is left of true, false or null
  std::string open_brackets_;  // the ends they wait for
};

}  // namespace kvasir::text
