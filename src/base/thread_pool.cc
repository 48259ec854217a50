#include "base/thread_pool.h"

#include "base/check.h"

namespace kvasir {
namespace {

// About 50 us of spinning: longer than the gap between two kernels of a step, shorter than
// anything a person or a power meter notices.
constexpr int kSpins = 2000;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  KVASIR_CHECK(threads >= 1, "a thread pool has at least one thread");
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { WorkerLoop(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::RunTiles(int thread) {
  for (int64_t tile = next_tile_.fetch_add(1, std::memory_order_relaxed); tile < tiles_;
       tile = next_tile_.fetch_add(1, std::memory_order_relaxed)) {
    (*body_)(tile, thread);
  }
}

void ThreadPool::ParallelFor(int64_t tiles,
                             const std::function<void(int64_t tile, int thread)>& body) {
  if (workers_.empty() || tiles <= 1) {
    for (int64_t tile = 0; tile < tiles; ++tile) body(tile, 0);
    return;
  }
  body_ = &body;
  tiles_ = tiles;
  next_tile_.store(0, std::memory_order_relaxed);
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  bool wake;
  {
    std::lock_guard lock(mutex_);
    generation_.fetch_add(1, std::memory_order_release);
    wake = sleepers_ > 0;
  }
  if (wake) wake_.notify_all();
  RunTiles(0);
  for (int spins = 0; running_.load(std::memory_order_acquire) != 0; ++spins) {
    spins < kSpins ? Pause() : std::this_thread::yield();
  }
}

void ThreadPool::WorkerLoop(int thread) {
  uint64_t seen = 0;
  while (true) {
    for (int spins = 0;
         spins < kSpins && generation_.load(std::memory_order_acquire) == seen && !stop_; ++spins) {
      Pause();
    }
    if (generation_.load(std::memory_order_acquire) == seen) {
      std::unique_lock lock(mutex_);
      ++sleepers_;
      wake_.wait(lock, [&] { return stop_ || generation_.load() != seen; });
      --sleepers_;
    }
    if (stop_ && generation_.load() == seen) return;
    seen = generation_.load(std::memory_order_acquire);
    RunTiles(thread);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace kvasir
