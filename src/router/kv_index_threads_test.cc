// KvIndex with many threads at once; made for ThreadSanitizer.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "router/kv_index.h"
#include "router/testing/index_model.h"

namespace kvasir::router {
namespace {

using testing::BlockForest;
using testing::IndexModel;

constexpr int32_t kWorkers = 70;  // more than a word of the bitsets has
constexpr int32_t kWriters = 3;
constexpr int32_t kReaders = 2;
constexpr int kChanges = 600;

// The writers' workers, whose bits lie in different words.
WorkerSlot WorkerOf(int32_t writer) { return writer * 33; }

class KvIndexThreadsTest : public ::testing::Test {
 protected:
  // The blocks that this writer ever stores: not those of every third path.
  bool MayStore(int32_t writer, size_t path) const {
    return path % kWriters != static_cast<size_t>(writer);
  }

  void Write(int32_t writer) {
    std::mt19937 random(writer);
    const WorkerSlot worker = WorkerOf(writer);
    for (int i = 0; i < kChanges; ++i) {
      const size_t chosen = random() % paths_.size();
      const auto path = absl::MakeConstSpan(paths_[chosen]);
      const size_t from = random() % 2 ? 0 : random() % path.size();
      if (random() % 100 == 0) {
        index_.Clear(worker);
        models_[writer].Clear(worker);
      } else if (random() % 2 == 0) {
        index_.Remove(worker, path.subspan(from));
        models_[writer].Remove(worker, path.subspan(from));
      } else if (MayStore(writer, chosen)) {
        index_.Store(worker, from == 0 ? forest_.root() : path[from - 1], path.subspan(from));
        models_[writer].Store(worker, path.subspan(from));
      }
    }
    --writing_;
  }

  void Read(int32_t reader) {
    std::mt19937 random(1000 + reader);
    std::vector<int32_t> blocks(kWorkers);
    while (writing_ > 0) {
      const std::vector<Hash128>& path = paths_[random() % paths_.size()];
      index_.Match(path, absl::MakeSpan(blocks));
      for (int32_t writer = 0; writer < kWriters; ++writer) {
        for (int32_t i = 0; i < blocks[WorkerOf(writer)]; ++i) {
          ASSERT_TRUE(storable_[writer].contains(path[i]));
        }
        blocks[WorkerOf(writer)] = 0;
      }
      ASSERT_EQ(blocks, std::vector<int32_t>(kWorkers));
      ASSERT_LE(index_.GetStats().blocks, kBlocks);
    }
  }

  void SetUp() override {
    for (int i = 0; i < 60; ++i) paths_.push_back(forest_.RandomPath(random_));
    for (int32_t writer = 0; writer < kWriters; ++writer) {
      for (size_t i = 0; i < paths_.size(); ++i) {
        if (MayStore(writer, i)) storable_[writer].insert(paths_[i].begin(), paths_[i].end());
      }
    }
  }

  static constexpr int32_t kBlocks = 300;
  std::mt19937 random_{1};
  const BlockForest forest_{kBlocks, random_};
  std::vector<std::vector<Hash128>> paths_;
  std::set<Hash128> storable_[kWriters];
  KvIndex index_{kWorkers};
  std::vector<IndexModel> models_ = std::vector<IndexModel>(kWriters, IndexModel(kWorkers));
  std::atomic<int32_t> writing_{kWriters};
};

TEST_F(KvIndexThreadsTest, StaysExact) {
  std::vector<std::thread> threads;
  for (int32_t i = 0; i < kWriters; ++i) threads.emplace_back([this, i] { Write(i); });
  for (int32_t i = 0; i < kReaders; ++i) threads.emplace_back([this, i] { Read(i); });
  for (std::thread& thread : threads) thread.join();

  EXPECT_TRUE(index_.CheckIntegrity().ok()) << index_.CheckIntegrity();
  for (const std::vector<Hash128>& path : paths_) {
    std::vector<int32_t> blocks(kWorkers);
    index_.Match(path, absl::MakeSpan(blocks));
    for (int32_t writer = 0; writer < kWriters; ++writer) {
      const WorkerSlot worker = WorkerOf(writer);
      EXPECT_EQ(blocks[worker], models_[writer].Match(path)[worker]);
    }
  }
}

}  // namespace
}  // namespace kvasir::router
