#include "loadgen/sse.h"

#include <utility>

namespace kvasir::loadgen {
namespace {

constexpr size_t kMaxEventBytes = 16 << 20;

}  // namespace

SseParser::SseParser(std::function<void(std::string_view)> on_data)
    : on_data_(std::move(on_data)) {}

Status SseParser::Add(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    line_ += bytes.substr(0, end);
    if (line_.size() + data_.size() > kMaxEventBytes) {
      return absl::ResourceExhaustedError("the server sent an event without end");
    }
    if (end == std::string_view::npos) break;
    if (line_.ends_with('\r')) line_.pop_back();
    TakeLine(line_);
    line_.clear();
    bytes.remove_prefix(end + 1);
  }
  return absl::OkStatus();
}

void SseParser::TakeLine(std::string_view line) {
  if (line.empty()) {
    if (has_data_) on_data_(data_);
    data_.clear();
    has_data_ = false;
    return;
  }
  if (!line.starts_with("data:")) return;
  line.remove_prefix(5);
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (has_data_) data_ += '\n';
  data_ += line;
  has_data_ = true;
}

}  // namespace kvasir::loadgen
