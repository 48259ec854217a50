// Which workers hold which blocks, as one simulated frontend believes: router::KvIndex's meaning in
// its plainest form.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/types/span.h>

#include <bitset>
#include <cstdint>

#include "base/hash128.h"

namespace kvasir::sim {

inline constexpr int32_t kMaxWorkers = 256;

// One thread at a time.
class BlockHolders {
 public:
  // blocks[w], for all w: how many blocks of the chain worker w holds from its first on, without a
  // gap.
  void Match(absl::Span<const Hash128> chain, absl::Span<int32_t> blocks) const;

  void Store(int32_t worker, absl::Span<const Hash128> blocks);
  void Remove(int32_t worker, absl::Span<const Hash128> blocks);

 private:
  absl::flat_hash_map<Hash128, std::bitset<kMaxWorkers>> holders_;
};

}  // namespace kvasir::sim
