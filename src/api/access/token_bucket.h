// A token bucket: it holds up to its capacity and fills at a steady rate.
//
// Pure: time is an argument. What Take() lets pass in any window of w seconds is at most
// capacity + rate * w.
#pragma once

#include <optional>

#include "base/clock.h"

namespace kvasir::api {

class TokenBucket {
 public:
  // Full. Both are positive.
  TokenBucket(double capacity, double per_second)
      : capacity_(capacity), per_second_(per_second), level_(capacity) {}

  // Takes `amount`, or nothing and returns false where less is there.
  bool Take(double amount, TimePoint now);

  // Takes what has been used already, be it there or not: the level may fall below zero. A negative
  // amount gives back, up to the capacity.
  void Settle(double amount, TimePoint now);

  double Level(TimePoint now) const;

  // How long until `amount`, at most the capacity, is there.
  Duration Until(double amount, TimePoint now) const;

  double capacity() const { return capacity_; }

 private:
  void Advance(TimePoint now);

  double capacity_;
  double per_second_;
  double level_;                      // at updated_
  std::optional<TimePoint> updated_;  // the latest time seen
};

}  // namespace kvasir::api
