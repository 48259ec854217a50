#include "cli/hub/pull.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "cli/hub/client.h"

namespace kvasir::cli {
namespace {

std::string HumanBytes(double bytes) {
  const char* unit = "B";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (bytes < 1024) break;
    bytes /= 1024;
    unit = larger;
  }
  return fmt::format("{:.1f} {}", bytes, unit);
}

// Draws "name  [#####     ]  45%  12.3 MiB of 27.0 MiB  3.4 MiB/s" over itself, on a terminal.
class ProgressBar {
 public:
  void Show(const HubFile& file, int64_t done) {
    if (!terminal_) return;
    const auto now = std::chrono::steady_clock::now();
    if (file.path != path_) {
      path_ = file.path;
      begin_ = now;
      begin_bytes_ = done;
    } else if (done < file.size && now - drawn_ < kRedraw) {
      return;
    }
    drawn_ = now;
    Draw(file, done, std::chrono::duration<double>(now - begin_).count());
  }

 private:
  static constexpr std::chrono::milliseconds kRedraw{100};
  static constexpr int kWidth = 30;

  void Draw(const HubFile& file, int64_t done, double seconds) const {
    const double share =
        file.size > 0 ? static_cast<double>(done) / static_cast<double>(file.size) : 1;
    const int filled = static_cast<int>(share * kWidth);
    const double rate = seconds > 0 ? static_cast<double>(done - begin_bytes_) / seconds : 0;
    const std::string line = fmt::format("\r\x1b[K{}  [{:<{}}] {:3.0f}%  {} of {}  {}/s{}",
                                         file.path, std::string(filled, '#'), kWidth, share * 100,
                                         HumanBytes(static_cast<double>(done)),
                                         HumanBytes(static_cast<double>(file.size)),
                                         HumanBytes(rate), done == file.size ? "\n" : "");
    std::fputs(line.c_str(), stderr);
    std::fflush(stderr);
  }

  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  std::string path_;
  int64_t begin_bytes_ = 0;
  std::chrono::steady_clock::time_point begin_, drawn_;
};

}  // namespace

StatusOr<std::filesystem::path> PullModel(std::string_view reference) {
  KVASIR_ASSIGN_OR_RETURN(const HubReference parsed, ParseHubReference(reference));
  ProgressBar bar;
  return HubClient(HubOptionsFromEnvironment())
      .Pull(parsed, [&](const HubFile& file, int64_t done) { bar.Show(file, done); });
}

}  // namespace kvasir::cli
