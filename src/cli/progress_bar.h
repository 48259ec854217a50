// A line on a terminal that shows how far something is.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace kvasir::cli {

// Draws "name  [#####     ]  45%  12.3 MiB of 27.0 MiB  3.4 MiB/s" over itself on stderr; nothing
// where that is no terminal. One thread at a time.
class ProgressBar {
 public:
  enum class Unit { kBytes, kSteps };  // a step shows no amount

  explicit ProgressBar(Unit unit = Unit::kBytes);
  // Another name begins another bar.
  void Show(const std::string& name, int64_t done, int64_t total);

 private:
  void Draw(int64_t done, int64_t total, double seconds) const;

  const Unit unit_;
  const bool terminal_;
  std::string name_;
  int64_t begin_done_ = 0;
  std::chrono::steady_clock::time_point begin_, drawn_;
};

}  // namespace kvasir::cli
