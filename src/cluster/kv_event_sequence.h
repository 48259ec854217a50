// Where a subscriber is in a publisher's stream of batches.
#pragma once

#include <cstdint>

namespace kvasir::cluster {

// A value.
class KvEventSequence {
 public:
  enum class Place {
    kNext,
    kAhead,      // those from next() on are missing before it
    kRepeated,   // it, or one that makes up for it, was taken before
    kRestarted,  // the publisher counts from 0 again
  };

  // Of a batch that was published at `timestamp`, s since 1970. A restarted publisher is known by
  // an old sequence with a newer time.
  Place Find(int64_t sequence, double timestamp) const {
    if (sequence >= next_) return sequence == next_ ? Place::kNext : Place::kAhead;
    return timestamp > timestamp_ ? Place::kRestarted : Place::kRepeated;
  }

  int64_t next() const { return next_; }

  void Take(int64_t sequence, double timestamp) {
    next_ = sequence + 1;
    timestamp_ = timestamp;
  }
  // What is missing before `sequence` will not come.
  void SkipTo(int64_t sequence) { next_ = sequence; }

 private:
  int64_t next_ = 0;
  double timestamp_ = 0;
};

}  // namespace kvasir::cluster
