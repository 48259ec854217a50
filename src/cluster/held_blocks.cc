#include "cluster/held_blocks.h"

#include <algorithm>
#include <utility>

namespace kvasir::cluster {

void HeldBlocks::Store(const kv::BlockStored& event) {
  const auto [it, inserted] = slot_of_.try_emplace(event.hash, slots_.size());
  if (!inserted) return;
  if (free_.empty()) {
    slots_.emplace_back();
  } else {
    it->second = free_.back();
    free_.pop_back();
  }
  HeldBlock& block = slots_[it->second].emplace();
  block.hash = event.hash;
  if (!event.is_first) block.parent = event.parent;
  block.token_ids.assign(event.token_ids.begin(), event.token_ids.end());
}

void HeldBlocks::Remove(const Hash128& hash) {
  const auto it = slot_of_.find(hash);
  if (it == slot_of_.end()) return;
  slots_[it->second].reset();
  free_.push_back(it->second);
  slot_of_.erase(it);
}

void HeldBlocks::Copy(size_t first, size_t count, std::vector<HeldBlock>* out) const {
  const size_t end = std::min(slots_.size(), first + count);
  for (size_t i = first; i < end; ++i) {
    if (slots_[i]) out->push_back(*slots_[i]);
  }
}

std::vector<HeldBlock> ParentsFirst(std::vector<HeldBlock> blocks) {
  absl::flat_hash_map<Hash128, std::vector<size_t>> children;
  std::vector<size_t> todo;  // a stack: a chain is followed to its end
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].parent) {
      children[*blocks[i].parent].push_back(i);
    } else {
      todo.push_back(i);
    }
  }
  std::vector<HeldBlock> out;
  out.reserve(blocks.size());
  while (!todo.empty()) {
    const size_t i = todo.back();
    todo.pop_back();
    const auto it = children.find(blocks[i].hash);
    if (it != children.end()) todo.insert(todo.end(), it->second.begin(), it->second.end());
    out.push_back(std::move(blocks[i]));
  }
  return out;
}

}  // namespace kvasir::cluster
