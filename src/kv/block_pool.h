// The KV blocks of one device as a resource: who holds which. Moves no bytes; a block is an index
// that a runner understands.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "base/status.h"
#include "core/batch.h"

namespace kvasir::kv {

class BlockPool;

// One hold on a block. The block returns to its pool when its last hold ends. Move-only: sharing
// is spelled out. Must not outlive the pool.
class BlockRef {
 public:
  BlockRef() = default;
  BlockRef(BlockRef&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), id_(other.id_) {}
  BlockRef& operator=(BlockRef&& other) noexcept;
  ~BlockRef() { Reset(); }

  // REQUIRES: holds a block, as do all methods below.
  BlockRef Share() const;
  BlockId id() const { return id_; }
  // True when no other handle holds the block: the only state in which it may be written.
  bool unique() const;

  explicit operator bool() const { return pool_ != nullptr; }
  void Reset();  // of an empty handle: nothing

 private:
  friend class BlockPool;
  BlockRef(BlockPool* pool, BlockId id) : pool_(pool), id_(id) {}

  BlockPool* pool_ = nullptr;
  BlockId id_ = 0;
};

// One thread at a time.
class BlockPool {
 public:
  explicit BlockPool(int32_t blocks);
  ~BlockPool();  // REQUIRES: every handle is gone
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // An empty handle when every block is held.
  BlockRef Allocate();

  int32_t size() const { return static_cast<int32_t>(refs_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t refs(BlockId id) const { return refs_[id]; }
  // The number of handles on every block, [size].
  absl::Span<const int32_t> all_refs() const { return refs_; }

  // The prefix index marks the blocks that it keeps, with one handle each. A marked block with no
  // other handle is idle: it can be had back by eviction.
  void SetCached(BlockId id, bool cached);
  bool cached(BlockId id) const { return cached_[id] != 0; }
  int32_t idle_cached() const { return idle_cached_; }

  // Internal, naming the first contradiction: in a list, a count or a mark.
  Status CheckIntegrity() const;

 private:
  friend class BlockRef;
  void Ref(BlockId id);
  void Unref(BlockId id);

  std::vector<int32_t> refs_;
  std::vector<uint8_t> cached_;
  std::vector<BlockId> free_;  // a stack: the block freed last is the warmest
  int32_t idle_cached_ = 0;    // blocks with cached_ set and one handle
};

}  // namespace kvasir::kv
