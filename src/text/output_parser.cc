#include "text/output_parser.h"

#include <iterator>
#include <utility>

namespace kvasir::text {

OutputParser::OutputParser(const OutputFormat& format, ReasoningState state)
    : reasoning_(format.reasoning == ReasoningFormat::kNone ? ReasoningState::kClosed : state),
      calls_(ToolCallParser::Create(format.tools)) {}

ParsedOutput OutputParser::Add(std::string_view text) {
  ReasoningSplitter::Output split = reasoning_.Add(text);
  ToolCallParser::Output calls = calls_->Add(split.content);
  return {std::move(split.reasoning), std::move(calls.content), std::move(calls.calls)};
}

ParsedOutput OutputParser::Finish() {
  ReasoningSplitter::Output split = reasoning_.Finish();
  ToolCallParser::Output calls = calls_->Add(split.content);
  ToolCallParser::Output last = calls_->Finish();
  calls.content += last.content;
  std::move(last.calls.begin(), last.calls.end(), std::back_inserter(calls.calls));
  return {std::move(split.reasoning), std::move(calls.content), std::move(calls.calls)};
}

}  // namespace kvasir::text
