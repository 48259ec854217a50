// A progress bar on one line of a terminal.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

#include "base/clock.h"

namespace kvasir::loadgen {

// "[=====>    ]  45/100  12.3 requests/s  1234 output tokens/s"
std::string ProgressLine(int64_t done, int64_t total, double seconds, int64_t output_tokens);

// Draws at most ten times a second, and removes the line in the end. Not thread-safe.
class ProgressBar {
 public:
  // Null: draws nothing. `clock` and `out` must outlive this.
  ProgressBar(std::ostream* out, int64_t total, const Clock& clock);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // One more request is done.
  void Advance(int64_t output_tokens);

 private:
  std::ostream* out_;
  const int64_t total_;
  const Clock& clock_;
  const TimePoint start_;
  TimePoint drawn_{};
  int64_t done_ = 0;
  int64_t output_tokens_ = 0;
};

}  // namespace kvasir::loadgen
