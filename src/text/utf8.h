// UTF-8 as Unicode defines it (no surrogates, no overlong forms), whole and in streams.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir::text {

// The first sequence of a text. `length` bytes long, 0 only for an empty text.
struct Utf8Sequence {
  enum Kind {
    kValid,       // one code point
    kInvalid,     // bytes that no valid text holds here: Unicode's "maximal subpart"
    kIncomplete,  // the text ends within a sequence that is valid so far
  };
  Kind kind = kValid;
  int length = 0;
  char32_t code_point = 0;  // with kValid
};
Utf8Sequence FirstSequence(std::string_view text);

bool IsValidUtf8(std::string_view text);

void AppendUtf8(char32_t code_point, std::string& out);

// Makes valid UTF-8 of a stream of bytes, however it is cut: every invalid sequence becomes one
// U+FFFD, and a sequence is held back until it is whole. Not thread-safe.
class Utf8Repair {
 public:
  std::string Add(std::string_view bytes);
  // What is held back, as U+FFFD.
  std::string Flush();

 private:
  std::string held_;  // at most three bytes
};

}  // namespace kvasir::text
