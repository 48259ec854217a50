// From a block's hash to its place in the tree: a hash table with linear probing, whose slots hold
// 64 bits of the hash; who asks compares the whole one, which lies in the tree already. Split into
// many small tables, so that none takes long to grow; they do not shrink.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>

#include "base/hash128.h"
#include "router/block_run.h"

namespace kvasir::router {

using NodeId = uint32_t;
inline constexpr NodeId kNoNode = 0;

// A block of the tree: which node's run holds it, and where in the run.
struct Place {
  NodeId node = kNoNode;
  Position position = 0;

  friend bool operator==(const Place&, const Place&) = default;
  explicit operator bool() const { return node != kNoNode; }
};

// One thread at a time, or any number that only look up.
class BlockTable {
 public:
  BlockTable() = default;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  // Fetches what Find will read. Any thread at any time, beside changes too.
  void Prefetch(const Hash128& hash) const;

  // The place that `is` says to be that of the hash, or none.
  template <typename Is>
  Place Find(const Hash128& hash, const Is& is) const {
    const uint64_t key = Key(hash);
    const Shard& shard = ShardOf(key);
    if (shard.capacity == 0) return {};
    const Slot* slots = shard.slots.get();
    for (uint32_t i = shard.Home(key); slots[i].place; i = shard.Next(i)) {
      if (slots[i].key == key && is(slots[i].place)) return slots[i].place;
    }
    return {};
  }

  // REQUIRES: the hash is not in the table.
  void Insert(const Hash128& hash, Place place);
  // REQUIRES: the hash is in the table, at `from`.
  void Move(const Hash128& hash, Place from, Place to) { SlotOf(hash, from).place = to; }
  void Erase(const Hash128& hash, Place place);

  int64_t size() const { return size_; }

 private:
  struct Slot {
    uint64_t key;
    Place place;  // none: the slot is free
  };

  struct Shard {
    // Keys keep their order in the table, so that growing it reads and writes in order.
    uint32_t Home(uint64_t key) const { return HomeIn(capacity, key); }
    uint32_t Next(uint32_t i) const { return i + 1 == capacity ? 0 : i + 1; }
    void Grow();
    void Add(const Slot& slot);

    std::unique_ptr<Slot[]> slots;  // [capacity]
    uint32_t capacity = 0;
    uint32_t used = 0;
    // The same two for Prefetch, which may see one of them old and fetch in vain.
    std::atomic<const Slot*> seen_slots{nullptr};
    std::atomic<uint32_t> seen_capacity{0};
  };

  static constexpr int kShardBits = 10;

  // Multiplied, so that hashes that are not random are spread too.
  static uint64_t Key(const Hash128& hash) {
    uint64_t words[2];
    std::memcpy(words, hash.bytes.data(), sizeof(words));
    return (words[0] ^ words[1]) * 0x9e3779b97f4a7c15;
  }
  // The key's bits below those that choose the shard, as a share of the capacity.
  static uint32_t HomeIn(uint32_t capacity, uint64_t key) {
    return (uint64_t{static_cast<uint32_t>(key >> (32 - kShardBits))} * capacity) >> 32;
  }
  const Shard& ShardOf(uint64_t key) const { return shards_[key >> (64 - kShardBits)]; }
  Shard& ShardOf(uint64_t key) { return shards_[key >> (64 - kShardBits)]; }
  Slot& SlotOf(const Hash128& hash, Place place);

  std::array<Shard, size_t{1} << kShardBits> shards_;
  int64_t size_ = 0;
};

}  // namespace kvasir::router
