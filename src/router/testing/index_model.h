// For tests: what KvIndex means in the simplest words, and random trees of blocks to try it with.
#pragma once

#include <absl/types/span.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "base/hash128.h"
#include "router/kv_index.h"

namespace kvasir::router::testing {

// As random as the hashes of blocks are, and the same for the same number (SplitMix64).
inline Hash128 MakeHash(int64_t number) {
  auto state = static_cast<uint64_t>(number) * 2;
  Hash128 hash;
  for (size_t i = 0; i < 16; i += 8) {
    uint64_t word = ++state * 0x9e3779b97f4a7c15;
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
    word = (word ^ word >> 27) * 0x94d049bb133111eb;
    word ^= word >> 31;
    std::memcpy(hash.bytes.data() + i, &word, sizeof(word));
  }
  return hash;
}

// Blocks, each with one parent, which is another block or the root. Most have one child.
class BlockForest {
 public:
  BlockForest(int32_t blocks, std::mt19937& random) {
    for (int32_t i = 0; i < blocks; ++i) {
      const bool follows = random() % 8 != 0;
      parents_.push_back(follows ? i - 1 : static_cast<int32_t>(random() % (i + 1)) - 1);
      hashes_.push_back(MakeHash(i));
      parent_of_[hashes_[i]] = parents_[i] < 0 ? root_ : hashes_[parents_[i]];
    }
  }

  const Hash128& root() const { return root_; }
  const std::map<Hash128, Hash128>& parent_of() const { return parent_of_; }

  // From a child of the root down to any block.
  std::vector<Hash128> RandomPath(std::mt19937& random) const {
    std::vector<Hash128> path;
    for (auto i = static_cast<int32_t>(random() % hashes_.size()); i >= 0; i = parents_[i]) {
      path.push_back(hashes_[i]);
    }
    std::reverse(path.begin(), path.end());
    return path;
  }

 private:
  const Hash128 root_ = MakeHash(-1);
  std::vector<int32_t> parents_;  // -1: the root
  std::vector<Hash128> hashes_;
  std::map<Hash128, Hash128> parent_of_;
};

// The set of blocks that each worker holds.
class IndexModel {
 public:
  explicit IndexModel(int32_t workers) : held_(workers) {}

  void Store(WorkerSlot worker, absl::Span<const Hash128> blocks) {
    held_[worker].insert(blocks.begin(), blocks.end());
  }
  void Remove(WorkerSlot worker, absl::Span<const Hash128> blocks) {
    for (const Hash128& hash : blocks) held_[worker].erase(hash);
  }
  void Clear(WorkerSlot worker) { held_[worker].clear(); }

  std::vector<int32_t> Match(absl::Span<const Hash128> chain) const {
    std::vector<int32_t> blocks;
    for (const std::set<Hash128>& held : held_) {
      const auto gap = std::find_if_not(chain.begin(), chain.end(),
                                        [&](const Hash128& hash) { return held.contains(hash); });
      blocks.push_back(static_cast<int32_t>(gap - chain.begin()));
    }
    return blocks;
  }

  int64_t Held() const {
    int64_t held = 0;
    for (const std::set<Hash128>& blocks : held_) held += static_cast<int64_t>(blocks.size());
    return held;
  }
  int64_t Blocks() const { return static_cast<int64_t>(Holders().size()); }

  // How many maximal runs there are: a block begins one unless it is the only held child of a
  // block that the same workers hold.
  int64_t Runs(const BlockForest& forest) const {
    const auto holders = Holders();
    std::map<Hash128, int> children;
    for (const auto& [hash, workers] : holders) ++children[forest.parent_of().at(hash)];
    return std::count_if(holders.begin(), holders.end(), [&](const auto& block) {
      const Hash128& parent = forest.parent_of().at(block.first);
      const auto above = holders.find(parent);
      return above == holders.end() || above->second != block.second || children[parent] != 1;
    });
  }

 private:
  std::map<Hash128, std::vector<WorkerSlot>> Holders() const {
    std::map<Hash128, std::vector<WorkerSlot>> holders;
    for (size_t worker = 0; worker < held_.size(); ++worker) {
      for (const Hash128& hash : held_[worker]) {
        holders[hash].push_back(static_cast<WorkerSlot>(worker));
      }
    }
    return holders;
  }

  std::vector<std::set<Hash128>> held_;
};

}  // namespace kvasir::router::testing
