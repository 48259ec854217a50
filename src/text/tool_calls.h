// Finds tool calls in the text of an answer, in the syntax of the model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/output_format.h"

namespace kvasir::text {

// A piece of a call. The first one of a call, and only it, has the name.
struct ToolCallDelta {
  int32_t index = 0;
  std::string name;
  std::string arguments;  // the JSON object as the model wrote it, piece by piece

  friend bool operator==(const ToolCallDelta&, const ToolCallDelta&) = default;
};

// Not thread-safe; one a stream. The pieces, joined, do not depend on how the text is cut.
//
// Text is held back while it may be the space before a call, a marker, or the part of a call before
// its arguments. Text that turns out to be no call becomes content. A call is announced with the
// first byte of its arguments and can't be taken back: if it breaks off later, it keeps what it
// had, and the rest is content. The space around calls is dropped.
class ToolCallParser {
 public:
  // With kNone, everything is content.
  static std::unique_ptr<ToolCallParser> Create(ToolFormat format);
  virtual ~ToolCallParser() = default;

  struct Output {
    std::string content;
    std::vector<ToolCallDelta> calls;
  };
  virtual Output Add(std::string_view text) = 0;
  // The end of the stream: nothing can be added after it.
  virtual Output Finish() = 0;

  virtual int32_t calls() const = 0;  // announced so far
};

}  // namespace kvasir::text
