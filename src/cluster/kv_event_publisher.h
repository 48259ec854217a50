// Publishes an engine's KV events over ZeroMQ as vLLM's ZmqEventPublisher does (its source is named
// in kv_event_codec.h), so that its subscribers need not know the difference:
//
//   PUB     [topic, sequence, payload]; sequences count batches from 0
//   ROUTER  a request [sequence] is answered by [sequence, payload] for each batch from there on
//           that is still kept, then by [-1, ""]
//
// Sequences are 8 bytes, big endian. Events that could not be taken in leave a gap: a sequence that
// is never sent and never replayed, followed by an empty batch that shows it.
//
// A snapshot is what is asked for with the sequence -2, which no client of vLLM sends and which
// vLLM answers with [-1, ""] alone. Its answer is at least one [sequence, payload, left] and then
// [-1, ""]: batches that together hold AllBlocksCleared and each block that is held, parents first;
// `sequence` is the last batch that they make up for, and `left` says how many follow.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "cluster/kv_event_codec.h"
#include "kv/kv_event.h"

namespace kvasir::cluster {

inline constexpr int64_t kEndOfReplay = -1;
inline constexpr int64_t kSnapshotRequest = -2;

struct KvEventPublisherOptions {
  std::string endpoint;         // to bind; "tcp://127.0.0.1:*": any free port
  std::string replay_endpoint;  // empty: no replay and no snapshots
  std::string topic;
  bool allow_remote = false;  // endpoints that are not of this machine alone
  HashForm hash_form = HashForm::kInt64;
  int32_t data_parallel_rank = 0;
  // That a batch waits for others of the same step.
  Duration gather = std::chrono::milliseconds(1);
  int64_t max_waiting_values = 1 << 19;  // hashes and token ids that wait to be published
  int64_t snapshot_values = 1 << 17;     // hashes and token ids in a message of a snapshot
  size_t replay_batches = 10'000;
  size_t replay_bytes = 64 << 20;
};

// Its own thread and ZeroMQ's two.
class KvEventPublisher {
 public:
  // InvalidArgument for an endpoint that may not be; Unavailable where it cannot be bound.
  static StatusOr<std::unique_ptr<KvEventPublisher>> Start(KvEventPublisherOptions options);
  // Publishes what waits; gives up a second later.
  ~KvEventPublisher();

  // For the thread of an engine, which it never keeps waiting.
  kv::KvEventListener& listener();

  // As they are bound.
  const std::string& endpoint() const;
  const std::string& replay_endpoint() const;

  struct Stats {
    int64_t published = 0;  // batches
    int64_t dropped = 0;    // batches of events that could not be taken in
    int64_t replays = 0;
    int64_t snapshots = 0;
  };
  Stats stats() const;  // thread-safe

 private:
  class Impl;
  explicit KvEventPublisher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir::cluster
