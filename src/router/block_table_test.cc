#include "router/block_table.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "router/testing/index_model.h"

namespace kvasir::router {
namespace {

// The hash of which the table makes this key, as long as it multiplies by kFactor.
Hash128 HashOfKey(uint64_t key) {
  constexpr uint64_t kFactor = 0x9e3779b97f4a7c15;
  uint64_t inverse = kFactor;
  for (int i = 0; i < 5; ++i) inverse *= 2 - kFactor * inverse;
  const uint64_t words[2] = {key * inverse, 0};
  Hash128 hash;
  std::memcpy(hash.bytes.data(), words, sizeof(words));
  return hash;
}

// One of few hashes: some random, some that all have one key, some that crowd at the end of a
// shard, so that probes go on at its beginning.
Hash128 AnyHash(std::mt19937& random) {
  const uint64_t number = random() % 300;
  Hash128 hash;
  switch (random() % 3) {
    case 0:
      return testing::MakeHash(static_cast<int64_t>(number));
    case 1:
      std::memcpy(hash.bytes.data(), &number, sizeof(number));
      std::memcpy(hash.bytes.data() + 8, &number, sizeof(number));
      return hash;
    default:
      return HashOfKey((uint64_t{1} << 63) - 1 - (number << 30));
  }
}

TEST(BlockTableTest, AgreesWithAMap) {
  std::mt19937 random(1);
  BlockTable table;
  std::map<Hash128, Place> model;
  std::map<uint32_t, Hash128> hash_at;
  const auto find = [&](const Hash128& hash) {
    return table.Find(hash, [&](Place at) { return hash_at.at(at.position) == hash; });
  };
  for (uint32_t i = 0; i < 20000; ++i) {
    const Hash128 hash = AnyHash(random);
    const auto known = model.find(hash);
    table.Prefetch(hash);
    ASSERT_EQ(find(hash), known == model.end() ? Place() : known->second);
    if (known == model.end()) {
      hash_at[i] = hash;
      model[hash] = {1, i};
      table.Insert(hash, {1, i});
    } else if (random() % 3 == 0) {
      hash_at[i] = hash;
      table.Move(hash, known->second, {2, i});
      known->second = {2, i};
    } else {
      table.Erase(hash, known->second);
      model.erase(known);
    }
    ASSERT_EQ(table.size(), static_cast<int64_t>(model.size()));
  }
  for (const auto& [hash, place] : model) ASSERT_EQ(find(hash), place);
}

}  // namespace
}  // namespace kvasir::router
