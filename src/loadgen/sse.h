// Server-sent events out of a stream of bytes, however it is cut.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::loadgen {

// Not thread-safe.
class SseParser {
 public:
  // `on_data` gets the data of each event; fields other than data are ignored.
  explicit SseParser(std::function<void(std::string_view data)> on_data);

  // ResourceExhausted for an event of more than 16 MiB.
  Status Add(std::string_view bytes);

 private:
  void TakeLine(std::string_view line);

  std::function<void(std::string_view)> on_data_;
  std::string line_;  // the last, not yet whole
  std::string data_;  // of the event so far
  bool has_data_ = false;
};

}  // namespace kvasir::loadgen
