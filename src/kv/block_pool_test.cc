#include "kv/block_pool.h"

#include <gtest/gtest.h>

namespace kvasir::kv {
namespace {

TEST(BlockPoolTest, HandsOutEachBlockOnceAndTakesItBack) {
  BlockPool pool(3);
  BlockRef a = pool.Allocate(), b = pool.Allocate(), c = pool.Allocate();
  EXPECT_NE(a.id(), b.id());
  EXPECT_NE(b.id(), c.id());
  EXPECT_FALSE(pool.Allocate());
  b.Reset();
  EXPECT_EQ(pool.free(), 1);
  EXPECT_TRUE(pool.Allocate());
  EXPECT_TRUE(pool.CheckIntegrity().ok());
}

TEST(BlockPoolTest, ASharedBlockComesBackWithItsLastHandle) {
  BlockPool pool(1);
  BlockRef a = pool.Allocate();
  EXPECT_TRUE(a.unique());
  {
    const BlockRef b = a.Share();
    EXPECT_EQ(a.id(), b.id());
    EXPECT_FALSE(a.unique());
    a.Reset();
    EXPECT_EQ(pool.free(), 0);
    EXPECT_TRUE(b.unique());
  }
  EXPECT_EQ(pool.free(), 1);
}

TEST(BlockPoolTest, MovingAHandleMovesTheHold) {
  BlockPool pool(2);
  BlockRef a = pool.Allocate();
  BlockRef b = std::move(a);
  EXPECT_FALSE(a);
  EXPECT_EQ(pool.free(), 1);
  b = pool.Allocate();  // the first block returns
  EXPECT_EQ(pool.free(), 1);
  EXPECT_TRUE(pool.CheckIntegrity().ok());
}

TEST(BlockPoolTest, CountsCachedBlocksThatNobodyElseHolds) {
  BlockPool pool(2);
  BlockRef a = pool.Allocate();
  pool.SetCached(a.id(), true);
  EXPECT_EQ(pool.idle_cached(), 1);
  {
    const BlockRef b = a.Share();
    EXPECT_EQ(pool.idle_cached(), 0);
  }
  EXPECT_EQ(pool.idle_cached(), 1);
  EXPECT_TRUE(pool.CheckIntegrity().ok());
  pool.SetCached(a.id(), false);
  EXPECT_EQ(pool.idle_cached(), 0);
}

TEST(BlockPoolDeathTest, AHandleThatOutlivesThePoolIsABrokenInvariant) {
  EXPECT_DEATH(
      {
        BlockRef leaked;
        BlockPool pool(1);
        leaked = pool.Allocate();
      },
      "every block is back");
}

}  // namespace
}  // namespace kvasir::kv
