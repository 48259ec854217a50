// The compute pool: a fixed number of threads, the caller among them, that run the tiles of one
// parallel loop at a time. Tiles are handed out dynamically; which thread runs a tile never
// changes a result, because a tile owns its outputs. Workers spin briefly after a loop, because
// the next one usually comes within microseconds, then sleep: an idle pool burns no CPU.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace kvasir {

class ThreadPool {
 public:
  // `threads` counts the caller, so `threads - 1` workers are started. threads >= 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs body(tile, thread) for every tile in [0, tiles) and returns when all are done. `thread`
  // is in [0, threads()), 0 being the caller: an index for per-thread scratch. One caller at a
  // time; not re-entrant.
  void ParallelFor(int64_t tiles, const std::function<void(int64_t tile, int thread)>& body);

 private:
  void WorkerLoop(int thread);
  void RunTiles(int thread);

  std::vector<std::thread> workers_;
  const std::function<void(int64_t, int)>* body_ = nullptr;
  int64_t tiles_ = 0;
  std::atomic<int64_t> next_tile_{0};
  std::atomic<int> running_{0};          // workers that have not yet finished the current loop
  std::atomic<uint64_t> generation_{0};  // one more for every loop
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // only for sleeping and waking
  std::condition_variable wake_;
  int sleepers_ = 0;
};

}  // namespace kvasir
