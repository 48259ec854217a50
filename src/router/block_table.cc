#include "router/block_table.h"

#include <algorithm>
#include <utility>

namespace kvasir::router {

void BlockTable::Prefetch(const Hash128& hash) const {
  const uint64_t key = Key(hash);
  const Shard& shard = ShardOf(key);
  // A number, because there may be no such slot.
  const auto slots = reinterpret_cast<uintptr_t>(shard.seen_slots.load(std::memory_order_relaxed));
  const uint32_t home = HomeIn(shard.seen_capacity.load(std::memory_order_relaxed), key);
  __builtin_prefetch(reinterpret_cast<const void*>(slots + home * sizeof(Slot)));
}

void BlockTable::Insert(const Hash128& hash, Place place) {
  const uint64_t key = Key(hash);
  Shard& shard = ShardOf(key);
  if (10 * (shard.used + 1) > 7 * shard.capacity) shard.Grow();
  shard.Add({key, place});
  ++shard.used;
  ++size_;
}

void BlockTable::Erase(const Hash128& hash, Place place) {
  Shard& shard = ShardOf(Key(hash));
  Slot* slots = shard.slots.get();
  uint32_t hole = static_cast<uint32_t>(&SlotOf(hash, place) - slots);
  const auto behind = [&](uint32_t from, uint32_t to) {
    return to >= from ? to - from : to + shard.capacity - from;
  };
  // Whoever was pushed past the hole by it moves up, so that no probe ends early.
  for (uint32_t i = shard.Next(hole); slots[i].place; i = shard.Next(i)) {
    if (behind(shard.Home(slots[i].key), i) >= behind(hole, i)) {
      slots[hole] = slots[i];
      hole = i;
    }
  }
  slots[hole].place = {};
  --shard.used;
  --size_;
}

BlockTable::Slot& BlockTable::SlotOf(const Hash128& hash, Place place) {
  Shard& shard = ShardOf(Key(hash));
  uint32_t i = shard.Home(Key(hash));
  while (shard.slots[i].place != place) i = shard.Next(i);
  return shard.slots[i];
}

void BlockTable::Shard::Add(const Slot& slot) {
  uint32_t i = Home(slot.key);
  while (slots[i].place) i = Next(i);
  slots[i] = slot;
}

void BlockTable::Shard::Grow() {
  const uint32_t old_capacity = std::exchange(capacity, std::max(8u, capacity + capacity / 2));
  const auto old_slots = std::exchange(slots, std::make_unique<Slot[]>(capacity));
  for (uint32_t i = 0; i < old_capacity; ++i) {
    if (old_slots[i].place) Add(old_slots[i]);
  }
  seen_slots.store(slots.get(), std::memory_order_relaxed);
  seen_capacity.store(capacity, std::memory_order_relaxed);
}

}  // namespace kvasir::router
