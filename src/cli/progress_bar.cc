#include "cli/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

namespace kvasir::cli {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};
constexpr int kWidth = 30;

std::string HumanBytes(double bytes) {
  const char* unit = "B";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (bytes < 1024) break;
    bytes /= 1024;
    unit = larger;
  }
  return fmt::format("{:.1f} {}", bytes, unit);
}

}  // namespace

ProgressBar::ProgressBar(Unit unit) : unit_(unit), terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressBar::Show(const std::string& name, int64_t done, int64_t total) {
  if (!terminal_) return;
  const auto now = std::chrono::steady_clock::now();
  if (name != name_) {
    name_ = name;
    begin_ = now;
    begin_done_ = done;
  } else if (done < total && now - drawn_ < kRedraw) {
    return;
  }
  drawn_ = now;
  Draw(done, total, std::chrono::duration<double>(now - begin_).count());
}

void ProgressBar::Draw(int64_t done, int64_t total, double seconds) const {
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
  const int filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * kWidth);
  std::string line = fmt::format("\r\x1b[K{}  [{:<{}}] {:3.0f}%", name_, std::string(filled, '#'),
                                 kWidth, share * 100);
  if (unit_ == Unit::kBytes) {
    const double rate = seconds > 0 ? static_cast<double>(done - begin_done_) / seconds : 0;
    line += fmt::format("  {} of {}  {}/s", HumanBytes(static_cast<double>(done)),
                        HumanBytes(static_cast<double>(total)), HumanBytes(rate));
  }
  if (done == total) line += '\n';
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace kvasir::cli
