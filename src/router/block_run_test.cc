#include "router/block_run.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <vector>

#include "router/testing/index_model.h"

namespace kvasir::router {
namespace {

using testing::MakeHash;

// Random use of both ends, across the end of the numbers too, against a deque; every block keeps
// its position.
TEST(BlockRunTest, KeepsPositionsWhileItGrowsAndShrinks) {
  std::mt19937 random(1);
  Position front = static_cast<Position>(-20);
  BlockRun run(front);
  std::deque<Hash128> model;
  for (int i = 0; i < 3000; ++i) {
    const uint32_t count = random() % 8;
    std::vector<Hash128> hashes;
    for (uint32_t k = 0; k < count; ++k) hashes.push_back(MakeHash(random() % 100));
    const auto dropped = std::min<uint32_t>(count, run.size());
    switch (random() % 4) {
      case 0:
        run.Append(hashes);
        model.insert(model.end(), hashes.begin(), hashes.end());
        break;
      case 1:
        run.Prepend(hashes);
        model.insert(model.begin(), hashes.begin(), hashes.end());
        front -= count;
        break;
      case 2:
        run.DropFront(dropped);
        model.erase(model.begin(), model.begin() + dropped);
        front += dropped;
        break;
      default:
        run.DropBack(dropped);
        model.erase(model.end() - dropped, model.end());
    }
    ASSERT_EQ(run.front(), front);
    ASSERT_EQ(std::vector<Hash128>(run.All().begin(), run.All().end()),
              std::vector<Hash128>(model.begin(), model.end()));
    for (uint32_t k = 0; k < run.size(); ++k) ASSERT_EQ(run[front + k], model[k]);
  }
}

TEST(BlockRunTest, MatchesAChainUntilEitherEndsOrTheyDiffer) {
  std::vector<Hash128> chain;
  for (int i = 0; i < 5; ++i) chain.push_back(MakeHash(i));
  BlockRun run(7);
  run.Append(chain);
  EXPECT_EQ(run.MatchLength(7, chain), 5u);
  EXPECT_EQ(run.MatchLength(9, absl::MakeConstSpan(chain).subspan(2, 2)), 2u);
  chain[3] = MakeHash(9);
  EXPECT_EQ(run.MatchLength(7, chain), 3u);
  EXPECT_EQ(run.MatchLength(11, chain), 0u);
}

}  // namespace
}  // namespace kvasir::router
