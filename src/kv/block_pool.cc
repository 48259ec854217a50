#include "kv/block_pool.h"

#include "base/check.h"

namespace kvasir::kv {

BlockRef& BlockRef::operator=(BlockRef&& other) noexcept {
  if (this != &other) {
    Reset();
    pool_ = std::exchange(other.pool_, nullptr);
    id_ = other.id_;
  }
  return *this;
}

BlockRef BlockRef::Share() const {
  KVASIR_CHECK(pool_ != nullptr, "an empty block handle is not shared");
  pool_->Ref(id_);
  return BlockRef(pool_, id_);
}

bool BlockRef::unique() const { return pool_->refs(id_) == 1; }

void BlockRef::Reset() {
  if (pool_ != nullptr) std::exchange(pool_, nullptr)->Unref(id_);
}

BlockPool::BlockPool(int32_t blocks) : refs_(blocks, 0), cached_(blocks, 0) {
  free_.reserve(blocks);
  for (BlockId id = blocks - 1; id >= 0; --id) free_.push_back(id);
}

BlockPool::~BlockPool() {
  KVASIR_CHECK(free() == size(), "every block is back when its pool goes");
}

BlockRef BlockPool::Allocate() {
  if (free_.empty()) return BlockRef();
  const BlockId id = free_.back();
  free_.pop_back();
  refs_[id] = 1;
  return BlockRef(this, id);
}

void BlockPool::SetCached(BlockId id, bool cached) {
  KVASIR_CHECK(refs_[id] > 0, "a cached block is held");
  KVASIR_CHECK((cached_[id] != 0) != cached, "a block is marked once");
  cached_[id] = cached;
  if (refs_[id] == 1) idle_cached_ += cached ? 1 : -1;
}

void BlockPool::Ref(BlockId id) {
  if (cached_[id] && refs_[id] == 1) --idle_cached_;
  ++refs_[id];
}

void BlockPool::Unref(BlockId id) {
  --refs_[id];
  if (cached_[id]) {
    KVASIR_CHECK(refs_[id] > 0, "the index unmarks a block before it drops it");
    if (refs_[id] == 1) ++idle_cached_;
  }
  if (refs_[id] == 0) free_.push_back(id);
}

Status BlockPool::CheckIntegrity() const {
  std::vector<uint8_t> listed(refs_.size(), 0);
  for (BlockId id : free_) {
    if (listed[id]++) return absl::InternalError(absl::StrCat("block ", id, " is free twice"));
  }
  int32_t idle = 0;
  for (BlockId id = 0; id < size(); ++id) {
    if (refs_[id] < 0 || (refs_[id] == 0) != (listed[id] == 1)) {
      return absl::InternalError(
          absl::StrCat("block ", id, " has ", refs_[id], " handles, and free is ", listed[id]));
    }
    idle += cached_[id] && refs_[id] == 1;
  }
  if (idle == idle_cached_) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(idle, " blocks are idle in the cache, ", idle_cached_, " are counted"));
}

}  // namespace kvasir::kv
