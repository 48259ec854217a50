// Finds a marker, and the space before it, in a text that comes byte by byte.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "text/json_scanner.h"

namespace kvasir::text {

// Not thread-safe.
class MarkerMatcher {
 public:
  // REQUIRES: the first byte of `marker` is no space and occurs in it once, so that a failed match
  // can begin again only at the byte that failed. `marker` outlives this.
  explicit MarkerMatcher(std::string_view marker) : marker_(marker) {}

  enum class Step {
    kHeld,   // space, or the beginning of the marker
    kFound,  // the marker's last byte
    kMiss,   // not that; what was held is no marker either, and the caller deals with both
  };
  Step Add(char byte) {
    if (matched_ == 0 && IsJsonSpace(byte)) {
      held_ += byte;
      return Step::kHeld;
    }
    if (byte != marker_[matched_]) return Step::kMiss;
    held_ += byte;
    if (++matched_ < marker_.size()) return Step::kHeld;
    matched_ = 0;
    return Step::kFound;
  }

  bool only_space() const { return matched_ == 0; }
  bool empty() const { return held_.empty(); }
  // What is held, from now on forgotten.
  std::string Take() {
    matched_ = 0;
    return std::exchange(held_, {});
  }

 private:
  std::string_view marker_;
  size_t matched_ = 0;
  std::string held_;
};

}  // namespace kvasir::text
