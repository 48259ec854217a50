// The blocks that an engine holds now, as its KV events tell, kept so that they can be copied out a
// few at a time while they change.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "base/hash128.h"
#include "core/sampling_params.h"
#include "kv/kv_event.h"

namespace kvasir::cluster {

struct HeldBlock {
  Hash128 hash;
  std::optional<Hash128> parent;  // none: the block begins a prompt
  std::vector<TokenId> token_ids;
};

// One thread at a time. A block keeps its slot as long as it is held; so whoever copies all slots
// in several goes gets every block that was held all the while, exactly once.
class HeldBlocks {
 public:
  void Store(const kv::BlockStored& event);
  void Remove(const Hash128& hash);

  int64_t size() const { return static_cast<int64_t>(slot_of_.size()); }
  size_t slots() const { return slots_.size(); }
  // Appends the blocks in `count` slots from `first` on.
  void Copy(size_t first, size_t count, std::vector<HeldBlock>* out) const;

 private:
  std::vector<std::optional<HeldBlock>> slots_;
  std::vector<size_t> free_;
  absl::flat_hash_map<Hash128, size_t> slot_of_;
};

// The same blocks, each after its parent, chains together; those whose parent is missing are left
// out, with what follows them.
std::vector<HeldBlock> ParentsFirst(std::vector<HeldBlock> blocks);

}  // namespace kvasir::cluster
