// Which KV blocks can be reused: a radix tree whose edges are blocks. Because a block's hash
// covers all tokens before it, the hash alone names a node, and a node is present only if its
// whole path is: presence along a chain of hashes is monotone.
//
// Two more invariants make the counts exact. The index keeps one block a hash, and whoever
// publishes an equal one is handed the kept one instead; so all holders of a prefix hold the same
// blocks, and a node that is held from outside has held ancestors.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "base/hash128.h"
#include "base/status.h"
#include "core/batch.h"
#include "kv/block_pool.h"
#include "kv/kv_event.h"

namespace kvasir::kv {

// One thread at a time.
class PrefixIndex {
 public:
  // `pool` outlives the index, as does `listener`, which may be null.
  explicit PrefixIndex(BlockPool& pool, KvEventListener* listener = nullptr);
  ~PrefixIndex();
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // What Match would give for a chain of block hashes, without pinning or touching anything.
  struct Found {
    int32_t blocks = 0;
    int32_t idle = 0;  // of these, held by the index alone
  };
  Found Probe(absl::Span<const Hash128> hashes) const;

  // Handles on the longest present prefix of the chain, which becomes the latest used.
  std::vector<BlockRef> Match(absl::Span<const Hash128> hashes);

  // Offers a full block whose KV is computed. Returns the handle to go on with: the given one, or
  // one on the block already kept under this hash.
  // REQUIRES: the parent is the chain's root (`is_first`) or is present.
  BlockRef Insert(const Hash128& hash, const Hash128& parent, bool is_first,
                  absl::Span<const TokenId> token_ids, BlockRef block);

  // Makes the path to `hash` the latest used. An unknown hash is ignored.
  void Touch(const Hash128& hash);

  // Drops up to `count` idle blocks, leaves first, the least recently used leaf before others.
  // Returns how many went.
  int32_t Evict(int32_t count);

  int32_t Size() const { return static_cast<int32_t>(nodes_.size()); }

  // Internal, naming the first contradiction in tree, order or handles.
  Status CheckIntegrity() const;

 private:
  struct Node {
    Hash128 hash;
    Node* parent = nullptr;  // null at the first block
    int32_t children = 0;
    uint64_t last_used = 0;
    BlockRef block;
  };

  void Use(Node* node);
  void Remove(Node* leaf);

  BlockPool& pool_;
  KvEventListener* const listener_;
  absl::flat_hash_map<Hash128, std::unique_ptr<Node>> nodes_;
  // Unique use times make the order independent of addresses.
  std::set<std::pair<uint64_t, Node*>> leaves_;
  uint64_t tick_ = 0;
};

}  // namespace kvasir::kv
