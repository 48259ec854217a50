// Which worker holds which KV blocks: a compressed radix tree over block hashes, whose nodes are
// runs of blocks that the same set of workers holds. Nodes split where chains or sets of workers
// part, and merge again where they no longer do.
//
// What it means is simple: for each worker the set of hashes stored and not removed since. Because
// a hash names all tokens before it, Match needs no more than that, and blocks may come in any
// order, their parents later or never (events get lost). Soft state: to lose it costs hits, never
// correctness.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <memory>

#include "base/hash128.h"
#include "base/status.h"

namespace kvasir::router {

// A worker's place in the index, in [0, max_workers). Who it is, membership knows.
using WorkerSlot = int32_t;

// Match may be called by any number of threads at any time. Changes of one worker come from one
// thread at a time, those of different workers may come at once. A large change is made in parts,
// each of which keeps others waiting for a few microseconds; a Match meanwhile may see some of the
// parts, but never a block that was not stored.
class KvIndex {
 public:
  explicit KvIndex(int32_t max_workers);
  ~KvIndex();
  KvIndex(const KvIndex&) = delete;
  KvIndex& operator=(const KvIndex&) = delete;

  int32_t max_workers() const;

  // blocks[w], for all w: how many blocks of the chain worker w holds from its first on, without a
  // gap. REQUIRES: blocks.size() == max_workers().
  void Match(absl::Span<const Hash128> chain, absl::Span<int32_t> blocks) const;

  // The worker holds `blocks`, each the child of the one before it and the first one the child of
  // `parent` (the cache root of the chain, or a block that may or may not be known). Blocks it
  // already holds stay as they are.
  void Store(WorkerSlot worker, const Hash128& parent, absl::Span<const Hash128> blocks);

  // The worker no longer holds them. Blocks it does not hold are ignored.
  void Remove(WorkerSlot worker, absl::Span<const Hash128> blocks);

  // The worker holds nothing: it said so, or has left.
  void Clear(WorkerSlot worker);

  struct Stats {
    int64_t blocks = 0;  // different ones that anyone holds
    int64_t held = 0;    // pairs of worker and block
    int64_t nodes = 0;
  };
  Stats GetStats() const;

  // Internal, naming the first contradiction. Not while anything changes.
  Status CheckIntegrity() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir::router
