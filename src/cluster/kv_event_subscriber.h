// Follows one publisher of KV events, Kvasir's or vLLM's (kv_event_publisher.h says how they
// speak): hands on its batches in order, without gaps as far as they can be replayed, and fetches
// snapshots.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "cluster/kv_event_codec.h"

namespace kvasir::cluster {

// Called on the subscriber's thread, one call at a time.
class KvEventSink {
 public:
  virtual ~KvEventSink() = default;

  // The next batch. When the publisher has started anew, one that holds AllBlocksCleared comes
  // before its first.
  virtual void OnBatch(const KvEventBatch& batch) = 0;

  // Batches are missing before the next one, and cannot be had again: what is known of the
  // publisher's blocks may be wrong until a snapshot, or until everything is forgotten.
  virtual void OnGap() = 0;

  // What RequestSnapshot() asked for: AllBlocksCleared and every block, in the place of all batches
  // before. Or why there is none: NotFound from vLLM, or from a Kvasir with too many of them under
  // way; DeadlineExceeded.
  virtual void OnSnapshot(const StatusOr<KvEventBatch>& snapshot) = 0;
};

struct KvEventSubscriberOptions {
  std::string endpoint;         // of the publisher
  std::string replay_endpoint;  // empty: every gap stays, and there are no snapshots
  std::string topic;            // what topics begin with
  Duration request_timeout = std::chrono::seconds(5);  // of a replay or a snapshot, as a whole
  int64_t max_snapshot_messages = 512;
  KvEventLimits limits;  // of a message
};

// Its own thread and ZeroMQ's two. It connects, and connects again, on its own: the publisher may
// come later. What was published before is replayed first, as far as it is kept.
class KvEventSubscriber {
 public:
  // `sink` and `clock` outlive the subscriber. Unavailable for an endpoint that is none.
  static StatusOr<std::unique_ptr<KvEventSubscriber>> Start(KvEventSubscriberOptions options,
                                                            KvEventSink& sink, const Clock& clock);
  // Returns when the sink is called no more, which takes no longer than a call of it does.
  ~KvEventSubscriber();

  // Thread-safe; OnSnapshot follows. Several at once may have one answer.
  void RequestSnapshot();

  struct Stats {
    int64_t batches = 0;    // that were handed on
    int64_t replayed = 0;   // of these, after they had been missed
    int64_t gaps = 0;       // that stayed
    int64_t malformed = 0;  // messages
  };
  Stats stats() const;  // thread-safe

 private:
  class Impl;
  explicit KvEventSubscriber(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir::cluster
