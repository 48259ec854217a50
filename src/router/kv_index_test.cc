#include "router/kv_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "router/testing/index_model.h"

namespace kvasir::router {
namespace {

using testing::BlockForest;
using testing::IndexModel;
using testing::MakeHash;

std::vector<int32_t> Match(const KvIndex& index, absl::Span<const Hash128> chain) {
  std::vector<int32_t> blocks(index.max_workers(), -1);
  index.Match(chain, absl::MakeSpan(blocks));
  return blocks;
}

std::vector<Hash128> Chain(int first, int count) {
  std::vector<Hash128> out;
  for (int i = 0; i < count; ++i) out.push_back(MakeHash(first + i));
  return out;
}

class KvIndexTest : public ::testing::Test {
 protected:
  ~KvIndexTest() override { EXPECT_TRUE(index_.CheckIntegrity().ok()) << index_.CheckIntegrity(); }

  // The counts of all workers for a chain, and the number of runs.
  void Expect(absl::Span<const Hash128> chain, std::vector<int32_t> blocks, int64_t nodes) {
    EXPECT_EQ(Match(index_, chain), blocks);
    EXPECT_EQ(index_.GetStats().nodes, nodes);
  }

  const Hash128 root_ = MakeHash(-1);
  const std::vector<Hash128> chain_ = Chain(0, 6);
  const absl::Span<const Hash128> all_ = chain_;
  KvIndex index_{3};
};

TEST_F(KvIndexTest, CountsWhatEachWorkerHoldsFromTheFirstBlockOn) {
  Expect(all_, {0, 0, 0}, 0);
  index_.Store(0, root_, all_);
  index_.Store(1, root_, all_.first(2));
  Expect(all_, {6, 2, 0}, 2);
  Expect(all_.first(1), {1, 1, 0}, 2);
  Expect(all_.subspan(1), {5, 1, 0}, 2);
  Expect({}, {0, 0, 0}, 2);
}

TEST_F(KvIndexTest, NodesSplitAndMergeAgain) {
  index_.Store(0, root_, all_);
  index_.Store(1, chain_[1], all_.subspan(2, 2));
  Expect(all_, {6, 0, 0}, 3);
  index_.Store(1, root_, all_.first(2));
  Expect(all_, {6, 4, 0}, 2);
  index_.Store(1, chain_[3], all_.subspan(4));
  Expect(all_, {6, 6, 0}, 1);
  const Hash128 branch = MakeHash(100);
  index_.Store(1, chain_[2], {&branch, 1});
  Expect(all_, {6, 6, 0}, 3);
  index_.Remove(1, {&branch, 1});
  Expect(all_, {6, 6, 0}, 1);
}

TEST_F(KvIndexTest, ParentsMayComeLate) {
  index_.Store(0, chain_[3], all_.subspan(4));
  index_.Store(0, root_, all_.first(2));
  Expect(all_, {2, 0, 0}, 2);
  index_.Store(0, chain_[1], all_.subspan(2, 2));
  Expect(all_, {6, 0, 0}, 1);
}

TEST_F(KvIndexTest, AGapStopsTheCountAndKeepsWhatFollows) {
  index_.Store(0, root_, all_);
  index_.Remove(0, all_.subspan(1, 2));
  Expect(all_, {1, 0, 0}, 2);
  EXPECT_EQ(index_.GetStats().blocks, 4);
  index_.Store(0, chain_[0], all_.subspan(1, 2));
  Expect(all_, {6, 0, 0}, 1);
}

TEST_F(KvIndexTest, RemovesFromTheLeafOn) {
  index_.Store(0, root_, all_);
  index_.Store(1, root_, all_);
  for (int i = 5; i >= 0; --i) {
    index_.Remove(0, {&chain_[i], 1});
    Expect(all_, {i, 6, 0}, i > 0 ? 2 : 1);
  }
  const std::vector<Hash128> backwards(chain_.rbegin(), chain_.rend());
  index_.Remove(1, backwards);
  Expect(all_, {0, 0, 0}, 0);
}

TEST_F(KvIndexTest, IgnoresWhatIsThereAndWhatIsNot) {
  index_.Store(0, root_, all_);
  index_.Store(0, chain_[1], all_.subspan(2, 3));
  index_.Remove(1, all_);
  index_.Remove(0, Chain(50, 2));
  index_.Clear(2);
  Expect(all_, {6, 0, 0}, 1);
  EXPECT_EQ(index_.GetStats().held, 6);
}

TEST_F(KvIndexTest, ClearsOneWorker) {
  index_.Store(0, root_, all_);
  index_.Store(1, root_, all_.first(3));
  index_.Clear(0);
  Expect(all_, {0, 3, 0}, 1);
  EXPECT_EQ(index_.GetStats().held, 3);
}

// Hashes that the table takes for one until it compares all of their bytes.
TEST_F(KvIndexTest, TellsSimilarHashesApart) {
  Hash128 a, b;
  for (int i = 0; i < 16; ++i) a.bytes[i] = b.bytes[i ^ 8] = static_cast<uint8_t>(i);
  index_.Store(0, root_, {&a, 1});
  index_.Store(1, root_, {&b, 1});
  Expect({&a, 1}, {1, 0, 0}, 2);
  index_.Remove(0, {&a, 1});
  Expect({&b, 1}, {0, 1, 0}, 1);
}

void ExpectSame(const KvIndex& index, const IndexModel& model, absl::Span<const Hash128> chain) {
  ASSERT_EQ(Match(index, chain), model.Match(chain));
}

void ExpectWhole(const KvIndex& index, const IndexModel& model) {
  ASSERT_TRUE(index.CheckIntegrity().ok()) << index.CheckIntegrity();
  ASSERT_EQ(index.GetStats().held, model.Held());
  ASSERT_EQ(index.GetStats().blocks, model.Blocks());
}

// A random change of a worker, done to the index and to the model.
void Change(KvIndex& index, IndexModel& model, const BlockForest& forest, std::mt19937& random) {
  const auto worker = static_cast<WorkerSlot>(random() % index.max_workers());
  const std::vector<Hash128> path = forest.RandomPath(random);
  const size_t from = random() % 2 ? 0 : random() % path.size();
  auto part = absl::MakeConstSpan(path).subspan(from, random() % 3 ? path.size() : 1);
  std::vector<Hash128> removed(part.begin(), part.end());
  switch (random() % 8) {
    case 0:
      if (random() % 20 != 0) return;
      index.Clear(worker);
      return model.Clear(worker);
    case 1:
      std::reverse(removed.begin(), removed.end());
      break;
    case 2:
      std::shuffle(removed.begin(), removed.end(), random);
      removed.insert(removed.end(), part.begin(), part.end());
      break;
    case 3:
      break;
    default:
      index.Store(worker, from == 0 ? forest.root() : path[from - 1], part);
      return model.Store(worker, part);
  }
  index.Remove(worker, removed);
  model.Remove(worker, removed);
}

void RunAgainstModel(int32_t workers, int32_t blocks, int changes, uint32_t seed) {
  std::mt19937 random(seed);
  const BlockForest forest(blocks, random);
  KvIndex index(workers);
  IndexModel model(workers);
  for (int i = 0; i < changes; ++i) {
    Change(index, model, forest, random);
    ExpectSame(index, model, forest.RandomPath(random));
    if (::testing::Test::HasFatalFailure()) return;
    if (i % 10 != 0) continue;
    ExpectWhole(index, model);
    if (::testing::Test::HasFatalFailure()) return;
    ASSERT_EQ(index.GetStats().nodes, model.Runs(forest));
  }
  for (WorkerSlot worker = 0; worker < workers; ++worker) index.Clear(worker);
  ASSERT_EQ(index.GetStats().blocks, 0);
  ASSERT_TRUE(index.CheckIntegrity().ok()) << index.CheckIntegrity();
}

TEST(KvIndexModelTest, AgreesWithFewWorkers) {
  for (uint32_t seed = 0; seed < 8; ++seed) RunAgainstModel(1 + seed % 4, 40, 400, seed);
}

TEST(KvIndexModelTest, AgreesOnLongChains) { RunAgainstModel(3, 400, 600, 11); }

TEST(KvIndexModelTest, AgreesWithHundredsOfWorkers) { RunAgainstModel(300, 60, 400, 12); }

// Random lists of 16 blocks, some of which several blocks are said to be the parents of, others
// unlike any chain. `acyclic`: a parent has a smaller number than its child, so that the tree,
// which believes what it hears first, has no cycles.
void RunContradictions(bool acyclic, uint32_t seed) {
  std::mt19937 random(seed);
  KvIndex index(3);
  IndexModel model(3);
  for (int i = 0; i < 3000; ++i) {
    const auto worker = static_cast<WorkerSlot>(random() % 3);
    std::vector<int> numbers;
    for (int k = 0, n = 2 + random() % 6; k < n; ++k) numbers.push_back(random() % 16);
    const bool store = random() % 2;
    if (store && acyclic) {
      std::sort(numbers.begin(), numbers.end());
      numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
    }
    std::vector<Hash128> blocks;
    for (int number : numbers) blocks.push_back(MakeHash(number));
    if (store) {
      const auto children = absl::MakeConstSpan(blocks).subspan(1);
      index.Store(worker, blocks[0], children);
      model.Store(worker, children);
    } else {
      index.Remove(worker, blocks);
      model.Remove(worker, blocks);
    }
    ASSERT_EQ(Match(index, blocks), model.Match(blocks));
    ASSERT_EQ(index.GetStats().held, model.Held());
    ASSERT_EQ(index.GetStats().blocks, model.Blocks());
    if (acyclic) {
      ASSERT_TRUE(index.CheckIntegrity().ok()) << index.CheckIntegrity();
    }
  }
}

TEST(KvIndexModelTest, BearsParentsThatContradict) { RunContradictions(true, 13); }

// No hash covers itself, but whoever says so does no harm.
TEST(KvIndexModelTest, BearsParentsInCycles) { RunContradictions(false, 14); }

}  // namespace
}  // namespace kvasir::router
