#include "sim/block_holders.h"

namespace kvasir::sim {

void BlockHolders::Match(absl::Span<const Hash128> chain, absl::Span<int32_t> blocks) const {
  using Workers = std::bitset<kMaxWorkers>;
  Workers holding;
  holding.set();
  const auto keep = [&](const Workers& holders, int32_t matched) {
    const Workers dropped = holding & ~holders;
    holding &= holders;
    if (dropped.none()) return;
    for (size_t w = 0; w < blocks.size(); ++w) {
      if (dropped[w]) blocks[w] = matched;
    }
  };
  int32_t matched = 0;
  for (const Hash128& hash : chain) {
    const auto it = holders_.find(hash);
    keep(it == holders_.end() ? Workers() : it->second, matched);
    if (holding.none()) return;
    ++matched;
  }
  keep(Workers(), matched);
}

void BlockHolders::Store(int32_t worker, absl::Span<const Hash128> blocks) {
  for (const Hash128& hash : blocks) holders_[hash].set(worker);
}

void BlockHolders::Remove(int32_t worker, absl::Span<const Hash128> blocks) {
  for (const Hash128& hash : blocks) {
    const auto it = holders_.find(hash);
    if (it == holders_.end()) continue;
    it->second.reset(worker);
    if (it->second.none()) holders_.erase(it);
  }
}

}  // namespace kvasir::sim
