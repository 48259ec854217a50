#include "router/kv_index.h"

#include <algorithm>

#include "base/check.h"
#include "base/shared_mutex.h"
#include "router/radix_tree.h"

namespace kvasir::router {
namespace {

// Blocks that a change covers under one hold of the lock: a few microseconds at most, for which
// matches wait.
constexpr size_t kBatch = 16;

}  // namespace

// One tree under one lock. Chains share their first blocks, often all of them, so shards by root
// would be one. Instead the sections are short: changes go in batches, and what a batch will read
// is fetched from memory before the lock is taken.
class KvIndex::Impl {
 public:
  explicit Impl(int32_t max_workers) : tree_(max_workers) {}

  int32_t max_workers() const KVASIR_THREAD_ANNOTATION(no_thread_safety_analysis) {
    return tree_.max_workers();
  }

  void Match(absl::Span<const Hash128> chain, absl::Span<int32_t> blocks) EXCLUDES(mutex_) {
    KVASIR_CHECK(static_cast<int32_t>(blocks.size()) == max_workers(), "a count for each worker");
    ReaderLock lock(mutex_);
    tree_.Match(chain, blocks);
  }

  void Store(WorkerSlot worker, Hash128 parent, absl::Span<const Hash128> blocks) EXCLUDES(mutex_) {
    CheckSlot(worker);
    Prefetch({&parent, 1});
    for (; !blocks.empty(); blocks.remove_prefix(std::min(kBatch, blocks.size()))) {
      const auto batch = blocks.subspan(0, kBatch);
      Prefetch(batch);
      {
        WriterLock lock(mutex_);
        tree_.Store(worker, parent, batch);
      }
      parent = batch.back();
    }
  }

  void Remove(WorkerSlot worker, absl::Span<const Hash128> blocks) EXCLUDES(mutex_) {
    CheckSlot(worker);
    for (; !blocks.empty(); blocks.remove_prefix(std::min(kBatch, blocks.size()))) {
      const auto batch = blocks.subspan(0, kBatch);
      Prefetch(batch);
      WriterLock lock(mutex_);
      tree_.Remove(worker, batch);
    }
  }

  // Others may split nodes meanwhile, so that parts of them come to lie where this has passed:
  // it goes round until the worker's own count says that nothing is left.
  void Clear(WorkerSlot worker) EXCLUDES(mutex_) {
    CheckSlot(worker);
    NodeId next = kNoNode;
    do {
      WriterLock lock(mutex_);
      next = tree_.ClearSome(worker, next, 4 * kBatch);
    } while (next != kNoNode);
  }

  Stats GetStats() EXCLUDES(mutex_) {
    ReaderLock lock(mutex_);
    return tree_.GetStats();
  }

  Status CheckIntegrity() EXCLUDES(mutex_) {
    ReaderLock lock(mutex_);
    return tree_.CheckIntegrity();
  }

 private:
  void CheckSlot(WorkerSlot worker) const {
    KVASIR_CHECK(worker >= 0 && worker < max_workers(), "a worker has a place in the index");
  }
  void Prefetch(absl::Span<const Hash128> blocks) const
      KVASIR_THREAD_ANNOTATION(no_thread_safety_analysis) {
    tree_.Prefetch(blocks);
  }

  SharedMutex mutex_;
  RadixTree tree_ GUARDED_BY(mutex_);
};

KvIndex::KvIndex(int32_t max_workers) : impl_(std::make_unique<Impl>(max_workers)) {}
KvIndex::~KvIndex() = default;

int32_t KvIndex::max_workers() const { return impl_->max_workers(); }

void KvIndex::Match(absl::Span<const Hash128> chain, absl::Span<int32_t> blocks) const {
  impl_->Match(chain, blocks);
}

void KvIndex::Store(WorkerSlot worker, const Hash128& parent, absl::Span<const Hash128> blocks) {
  impl_->Store(worker, parent, blocks);
}

void KvIndex::Remove(WorkerSlot worker, absl::Span<const Hash128> blocks) {
  impl_->Remove(worker, blocks);
}

void KvIndex::Clear(WorkerSlot worker) { impl_->Clear(worker); }

KvIndex::Stats KvIndex::GetStats() const { return impl_->GetStats(); }

Status KvIndex::CheckIntegrity() const { return impl_->CheckIntegrity(); }

}  // namespace kvasir::router
