#include "kv/prefix_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "core/block_hash.h"

namespace kvasir::kv {
namespace {

constexpr int32_t kBlock = 16;

std::vector<TokenId> Tokens(TokenId first, int32_t blocks) {
  return std::vector<TokenId>(blocks * kBlock, first);
}

// Records events as "+parent>hash" and "-hash", and checks that they describe a tree.
class Recorder final : public KvEventListener {
 public:
  void OnStored(const BlockStored& e) override {
    EXPECT_TRUE(parents.emplace(e.hash, e.parent).second);
    EXPECT_EQ(HashUnit(e.parent, e.token_ids), e.hash);
    EXPECT_EQ(e.is_first, e.parent == CacheRoot("weights", "numerics", "", ""));
  }
  void OnRemoved(const BlockRemoved& e) override {
    for (const auto& [hash, parent] : parents) EXPECT_NE(parent, e.hash) << "parent before child";
    EXPECT_EQ(parents.erase(e.hash), 1u);
  }
  std::map<Hash128, Hash128> parents;
};

class PrefixIndexTest : public testing::Test {
 protected:
  // Publishes all blocks of `tokens` and returns the handles of the publisher.
  std::vector<BlockRef> Publish(const std::vector<TokenId>& tokens) {
    const std::vector<Hash128> hashes = HashUnits(root_, tokens);
    std::vector<BlockRef> refs = index_.Match(hashes);
    for (size_t i = refs.size(); i < hashes.size(); ++i) {
      if (pool_.free() == 0) index_.Evict(1);
      refs.push_back(index_.Insert(hashes[i], i ? hashes[i - 1] : root_, i == 0,
                                   absl::MakeConstSpan(tokens).subspan(i * kBlock, kBlock),
                                   pool_.Allocate()));
    }
    return refs;
  }
  int32_t Present(const std::vector<TokenId>& tokens) {
    return index_.Probe(HashUnits(root_, tokens)).blocks;
  }
  void CheckIntegrity() {
    EXPECT_TRUE(pool_.CheckIntegrity().ok()) << pool_.CheckIntegrity();
    EXPECT_TRUE(index_.CheckIntegrity().ok()) << index_.CheckIntegrity();
  }

  Hash128 root_ = CacheRoot("weights", "numerics", "", "");
  BlockPool pool_{8};
  Recorder recorder_;
  PrefixIndex index_{pool_, &recorder_};
};

TEST_F(PrefixIndexTest, MatchesTheLongestPrefix) {
  std::vector<TokenId> tokens = Tokens(7, 3);
  Publish(tokens);
  EXPECT_EQ(Present(tokens), 3);
  tokens[2 * kBlock] = 8;
  EXPECT_EQ(Present(tokens), 2);
  tokens[0] = 8;
  EXPECT_EQ(Present(tokens), 0);
  EXPECT_EQ(index_.Size(), 3);
}

TEST_F(PrefixIndexTest, AMatchPins) {
  Publish(Tokens(7, 3));
  EXPECT_EQ(pool_.idle_cached(), 3);
  {
    const auto held = index_.Match(HashUnits(root_, Tokens(7, 2)));
    EXPECT_EQ(held.size(), 2u);
    EXPECT_EQ(pool_.idle_cached(), 1);
    const PrefixIndex::Found found = index_.Probe(HashUnits(root_, Tokens(7, 3)));
    EXPECT_EQ(found.blocks, 3);
    EXPECT_EQ(found.idle, 1);
    EXPECT_EQ(index_.Evict(8), 1);
    CheckIntegrity();
  }
  EXPECT_EQ(index_.Evict(8), 2);
  EXPECT_EQ(pool_.free(), 8);
}

TEST_F(PrefixIndexTest, KeepsOneBlockAHash) {
  const std::vector<TokenId> tokens = Tokens(7, 1);
  const std::vector<Hash128> hashes = HashUnits(root_, tokens);
  BlockRef first = index_.Insert(hashes[0], root_, true, tokens, pool_.Allocate());
  BlockRef second = index_.Insert(hashes[0], root_, true, tokens, pool_.Allocate());
  EXPECT_EQ(first.id(), second.id());
  EXPECT_EQ(pool_.free(), 7);
}

TEST_F(PrefixIndexTest, EvictsTheLeastRecentlyUsedLeafFirst) {
  Publish(Tokens(1, 2));
  Publish(Tokens(2, 2));
  index_.Match(HashUnits(root_, Tokens(1, 2)));
  EXPECT_EQ(index_.Evict(1), 1);
  EXPECT_EQ(Present(Tokens(1, 2)), 2);
  EXPECT_EQ(Present(Tokens(2, 2)), 1);
  index_.Touch(HashUnits(root_, Tokens(2, 1)).back());
  EXPECT_EQ(index_.Evict(2), 2);
  EXPECT_EQ(Present(Tokens(1, 2)), 0);
  EXPECT_EQ(Present(Tokens(2, 2)), 1);
  CheckIntegrity();
}

// Random publishing, holding and releasing against the invariants and the events' copy.
TEST_F(PrefixIndexTest, StaysWholeUnderRandomUse) {
  std::mt19937 random(1);
  std::vector<std::vector<BlockRef>> held;
  for (int i = 0; i < 3000; ++i) {
    std::vector<TokenId> tokens;
    for (int b = 0, n = 1 + random() % 3; b < n; ++b) {
      tokens.insert(tokens.end(), kBlock, static_cast<TokenId>(random() % 2));
    }
    int32_t pinned = 0;
    for (BlockId id = 0; id < pool_.size(); ++id) pinned += pool_.refs(id) > 1;
    if (pinned + 3 <= pool_.size()) held.push_back(Publish(tokens));
    if (held.size() > random() % 4) held.erase(held.begin() + random() % held.size());
    if (random() % 8 == 0) index_.Evict(random() % 4);
    CheckIntegrity();
    ASSERT_EQ(index_.Size(), static_cast<int32_t>(recorder_.parents.size()));
  }
  held.clear();
  EXPECT_EQ(pool_.free() + index_.Size(), pool_.size());
  EXPECT_EQ(pool_.idle_cached(), index_.Size());
}

}  // namespace
}  // namespace kvasir::kv
