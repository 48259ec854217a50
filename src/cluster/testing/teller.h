// An engine's blocks for tests, told to a listener.
#pragma once

#include <optional>
#include <vector>

#include "core/block_hash.h"
#include "kv/kv_event.h"

namespace kvasir::cluster {

class Teller {
 public:
  explicit Teller(kv::KvEventListener& listener) : listener_(listener) {}

  // A block of `id`, 16 times; without a parent it begins a prompt.
  Hash128 Store(std::optional<Hash128> parent, TokenId id) {
    const std::vector<TokenId> tokens(kHashUnitTokens, id);
    const Hash128 above = parent.value_or(root_);
    const Hash128 hash = HashUnit(above, tokens);
    listener_.OnStored({.hash = hash, .parent = above, .token_ids = tokens, .is_first = !parent});
    return hash;
  }
  void Remove(const Hash128& hash) { listener_.OnRemoved({hash}); }

 private:
  kv::KvEventListener& listener_;
  const Hash128 root_ = CacheRoot("weights", "numerics", "", "");
};

}  // namespace kvasir::cluster
