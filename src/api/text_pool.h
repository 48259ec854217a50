// Threads for tokenizing large inputs, so that no HTTP thread, and no stream it serves, waits for
// one. The queue is capped.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace kvasir::api {

// Thread-safe.
class TextPool {
 public:
  TextPool(int threads, size_t max_waiting);
  ~TextPool() { Stop(); }
  TextPool(const TextPool&) = delete;
  TextPool& operator=(const TextPool&) = delete;

  // False when the queue is full: the work was not taken.
  bool Submit(std::function<void()> work);

  size_t waiting() const;

  // Returns when what has begun is done; drops what waits and whatever comes later.
  void Stop();

 private:
  void Loop();

  const size_t max_waiting_;
  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> queue_ GUARDED_BY(mutex_);
  bool stop_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvasir::api
