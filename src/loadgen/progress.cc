#include "loadgen/progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvasir::loadgen {
namespace {

constexpr int kWidth = 30;
constexpr Duration kRedraw = std::chrono::milliseconds(100);
constexpr std::string_view kClearLine = "\r\x1b[K";

}  // namespace

std::string ProgressLine(int64_t done, int64_t total, double seconds, int64_t output_tokens) {
  const int64_t filled = total > 0 ? std::min<int64_t>(kWidth, done * kWidth / total) : kWidth;
  std::string bar(static_cast<size_t>(filled), '=');
  if (filled < kWidth) bar += '>';
  bar.resize(kWidth, ' ');
  const double per_second = seconds > 0 ? 1 / seconds : 0;
  return fmt::format("[{}] {}/{}  {:.1f} requests/s  {:.0f} output tokens/s", bar, done, total,
                     static_cast<double>(done) * per_second,
                     static_cast<double>(output_tokens) * per_second);
}

ProgressBar::ProgressBar(std::ostream* out, int64_t total, const Clock& clock)
    : out_(out), total_(total), clock_(clock), start_(clock.Now()) {}

ProgressBar::~ProgressBar() {
  if (out_ != nullptr) *out_ << kClearLine << std::flush;
}

void ProgressBar::Advance(int64_t output_tokens) {
  ++done_;
  output_tokens_ += output_tokens;
  if (out_ == nullptr) return;
  const TimePoint now = clock_.Now();
  if (drawn_ != TimePoint{} && now - drawn_ < kRedraw) return;
  drawn_ = now;
  *out_ << kClearLine << ProgressLine(done_, total_, ToSeconds(now - start_), output_tokens_)
        << std::flush;
}

}  // namespace kvasir::loadgen
