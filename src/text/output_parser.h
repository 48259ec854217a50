// An answer's text, split into reasoning, content and tool calls.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/output_format.h"
#include "text/reasoning.h"
#include "text/tool_calls.h"

namespace kvasir::text {

struct ParsedOutput {
  std::string reasoning;
  std::string content;
  std::vector<ToolCallDelta> calls;
};

// Not thread-safe; one a stream. The pieces, joined, do not depend on how the text is cut.
class OutputParser {
 public:
  // `state` is where the prompt left off; it counts only if the format knows reasoning.
  OutputParser(const OutputFormat& format, ReasoningState state);

  ParsedOutput Add(std::string_view text);
  ParsedOutput Finish();  // nothing can be added after it

  bool in_reasoning() const { return reasoning_.inside(); }
  int32_t calls() const { return calls_->calls(); }

 private:
  ReasoningSplitter reasoning_;
  std::unique_ptr<ToolCallParser> calls_;
};

}  // namespace kvasir::text
