#include "kv/prefix_index.h"

#include <algorithm>

#include "base/check.h"

namespace kvasir::kv {
namespace {

// The first i in [0, size) for which `holds(i)` is false, or size; `holds` is monotone.
template <typename Predicate>
int32_t PartitionPoint(int32_t size, const Predicate& holds) {
  int32_t low = 0;
  for (int32_t high = size; low < high;) {
    const int32_t middle = low + (high - low) / 2;
    holds(middle) ? low = middle + 1 : high = middle;
  }
  return low;
}

}  // namespace

PrefixIndex::PrefixIndex(BlockPool& pool, KvEventListener* listener)
    : pool_(pool), listener_(listener) {}

PrefixIndex::~PrefixIndex() {
  for (auto& [hash, node] : nodes_) pool_.SetCached(node->block.id(), false);
}

PrefixIndex::Found PrefixIndex::Probe(absl::Span<const Hash128> hashes) const {
  Found found;
  const int32_t size = static_cast<int32_t>(hashes.size());
  found.blocks = PartitionPoint(size, [&](int32_t i) { return nodes_.contains(hashes[i]); });
  found.idle = found.blocks - PartitionPoint(found.blocks, [&](int32_t i) {
                 return !nodes_.find(hashes[i])->second->block.unique();
               });
  return found;
}

std::vector<BlockRef> PrefixIndex::Match(absl::Span<const Hash128> hashes) {
  std::vector<BlockRef> refs;
  for (const Hash128& hash : hashes) {
    const auto it = nodes_.find(hash);
    if (it == nodes_.end()) break;
    Use(it->second.get());
    refs.push_back(it->second->block.Share());
  }
  return refs;
}

BlockRef PrefixIndex::Insert(const Hash128& hash, const Hash128& parent, bool is_first,
                             absl::Span<const TokenId> token_ids, BlockRef block) {
  auto [it, inserted] = nodes_.try_emplace(hash);
  if (!inserted) {
    Use(it->second.get());
    return it->second->block.Share();
  }
  it->second = std::make_unique<Node>();
  Node* node = it->second.get();
  node->hash = hash;
  if (!is_first) {
    const auto above = nodes_.find(parent);
    KVASIR_CHECK(above != nodes_.end(), "a block is published after its parent");
    node->parent = above->second.get();
    if (node->parent->children++ == 0) leaves_.erase({node->parent->last_used, node->parent});
  }
  node->last_used = ++tick_;
  leaves_.emplace(node->last_used, node);
  node->block = block.Share();
  pool_.SetCached(node->block.id(), true);
  if (listener_) listener_->OnStored({hash, parent, token_ids, block.id(), is_first});
  return block;
}

void PrefixIndex::Use(Node* node) {
  if (node->children == 0) leaves_.erase({node->last_used, node});
  node->last_used = ++tick_;
  if (node->children == 0) leaves_.emplace(node->last_used, node);
}

void PrefixIndex::Touch(const Hash128& hash) {
  const auto it = nodes_.find(hash);
  if (it == nodes_.end()) return;
  for (Node* node = it->second.get(); node != nullptr; node = node->parent) Use(node);
}

int32_t PrefixIndex::Evict(int32_t count) {
  int32_t evicted = 0;
  while (evicted < count) {
    const auto idle = std::find_if(leaves_.begin(), leaves_.end(),
                                   [](const auto& leaf) { return leaf.second->block.unique(); });
    if (idle == leaves_.end()) break;
    Remove(idle->second);
    ++evicted;
  }
  return evicted;
}

void PrefixIndex::Remove(Node* leaf) {
  leaves_.erase({leaf->last_used, leaf});
  if (Node* parent = leaf->parent; parent != nullptr && --parent->children == 0) {
    leaves_.emplace(parent->last_used, parent);
  }
  pool_.SetCached(leaf->block.id(), false);
  const Hash128 hash = leaf->hash;
  nodes_.erase(hash);
  if (listener_) listener_->OnRemoved({hash});
}

Status PrefixIndex::CheckIntegrity() const {
  absl::flat_hash_map<const Node*, int32_t> children;
  for (const auto& [hash, node] : nodes_) {
    if (node->parent == nullptr) continue;
    const auto parent = nodes_.find(node->parent->hash);
    if (parent == nodes_.end() || parent->second.get() != node->parent) {
      return absl::InternalError(absl::StrCat("block ", hash.Hex(), " has lost its parent"));
    }
    if (!node->block.unique() && node->parent->block.unique()) {
      return absl::InternalError(absl::StrCat("block ", hash.Hex(), " is held, its parent is not"));
    }
    ++children[node->parent];
  }
  for (const auto& [hash, node] : nodes_) {
    const auto counted = children.find(node.get());
    if (node->children != (counted == children.end() ? 0 : counted->second)) {
      return absl::InternalError(absl::StrCat("block ", hash.Hex(), " miscounts its children"));
    }
    if ((node->children == 0) != leaves_.contains({node->last_used, node.get()})) {
      return absl::InternalError(absl::StrCat("block ", hash.Hex(), " is no leaf, or unlisted"));
    }
    if (!pool_.cached(node->block.id())) {
      return absl::InternalError(absl::StrCat("block ", hash.Hex(), " is not marked as cached"));
    }
  }
  return absl::OkStatus();
}

}  // namespace kvasir::kv
