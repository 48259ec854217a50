// The parsers of reasoning and tool calls: any text in any format gives the same, cut anywhere. The
// first byte picks the format, the second where to cut.
#include "text/output_parser.h"

#include <algorithm>
#include <string_view>

#include "views.h"

namespace kvasir::fuzz {
namespace {

struct Whole {
  std::string reasoning;
  std::string content;
  std::vector<text::ToolCallDelta> calls;
  friend bool operator==(const Whole&, const Whole&) = default;
};

void Append(const text::ParsedOutput& piece, Whole* whole) {
  whole->reasoning += piece.reasoning;
  whole->content += piece.content;
  for (const text::ToolCallDelta& delta : piece.calls) {
    const size_t index = static_cast<size_t>(delta.index);
    if (delta.name.empty()) {
      Require(index + 1 == whole->calls.size());
      whole->calls.back().arguments += delta.arguments;
    } else {
      Require(index == whole->calls.size());
      whole->calls.push_back(delta);
    }
  }
}

Whole Parse(const text::OutputFormat& format, text::ReasoningState state, std::string_view text,
            size_t size) {
  text::OutputParser parser(format, state);
  Whole whole;
  for (; !text.empty(); text.remove_prefix(std::min(size, text.size()))) {
    Append(parser.Add(text.substr(0, size)), &whole);
  }
  Append(parser.Finish(), &whole);
  return whole;
}

}  // namespace
}  // namespace kvasir::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  if (size < 2) return 0;
  const text::OutputFormat format{static_cast<text::ToolFormat>(data[0] % 5),
                                  static_cast<text::ReasoningFormat>(data[0] / 5 % 2)};
  const auto state = static_cast<text::ReasoningState>(data[0] / 10 % 3);
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const fuzz::Whole whole = fuzz::Parse(format, state, text, text.size());
  fuzz::Require(fuzz::Parse(format, state, text, 1) == whole);
  fuzz::Require(fuzz::Parse(format, state, text, 1 + data[1] % 32) == whole);
  fuzz::Require(whole.reasoning.size() + whole.content.size() <= text.size());
  if (whole.calls.empty() && format.reasoning == text::ReasoningFormat::kNone) {
    fuzz::Require(whole.content == text);
  }
  return 0;
}
