// A copy of the block accounting to plan on: exact, so that what was planned can be committed
// without a failure.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>

#include "core/batch.h"
#include "kv/block_pool.h"

namespace kvasir::schedule {

class Capacity {
 public:
  // `pool` is read, never changed, and must not change while this is in use.
  explicit Capacity(const kv::BlockPool& pool)
      : pool_(pool), available_(pool.free() + pool.idle_cached()) {}

  // Blocks that are free or that eviction can free.
  int32_t available() const { return available_; }

  // REQUIRES: blocks <= available().
  void Take(int32_t blocks) { available_ -= blocks; }

  // Sequences that hold the block.
  int32_t Holders(BlockId id) const {
    const auto it = released_.find(id);
    return pool_.refs(id) - (pool_.cached(id) ? 1 : 0) - (it == released_.end() ? 0 : it->second);
  }

  // Ends one sequence's hold.
  void Release(BlockId id) {
    ++released_[id];
    if (Holders(id) == 0) ++available_;
  }

 private:
  const kv::BlockPool& pool_;
  int32_t available_;
  absl::flat_hash_map<BlockId, int32_t> released_;  // holds ended
};

}  // namespace kvasir::schedule
