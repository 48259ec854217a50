#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>

namespace kvasir {
namespace {

TEST(ThreadPoolTest, RunsEveryTileOnce) {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int64_t tiles : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> hits(tiles);
      pool.ParallelFor(tiles, [&](int64_t tile, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, threads);
        hits[tile].fetch_add(1);
      });
      for (const auto& h : hits) EXPECT_EQ(h.load(), 1);
    }
  }
}

TEST(ThreadPoolTest, ManyShortLoops) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 2000; ++i) pool.ParallelFor(5, [&](int64_t t, int) { sum += t; });
  EXPECT_EQ(sum.load(), 2000 * 10);
}

}  // namespace
}  // namespace kvasir
