#include "base/shared_mutex.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace kvasir {
namespace {

// Two counters that writers keep equal: a reader that sees them differ was let in beside a writer,
// and a lost addition means two writers.
TEST(SharedMutexTest, KeepsWritersAlone) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 20000;
  SharedMutex mutex;
  int64_t first = 0, second = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) {
        {
          WriterLock lock(mutex);
          ++first;
          ++second;
        }
        ReaderLock lock(mutex);
        ASSERT_EQ(first, second);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(first, int64_t{kThreads} * kRounds);
}

TEST(SharedMutexTest, ReadersShare) {
  SharedMutex mutex;
  ReaderLock lock(mutex);
  std::thread([&] { ReaderLock beside(mutex); }).join();
}

}  // namespace
}  // namespace kvasir
