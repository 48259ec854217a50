// Threads that work out what constraints allow while the forward pass runs, so that a slow grammar
// holds up its own sequence and not the batch.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "grammar/cursor.h"

namespace kvasir::engine {

// What one sequence needs for its next draw. While the job is out the cursor is the pool's; the
// caller reads `guides` once Done() has said so.
struct GuideJob {
  std::shared_ptr<grammar::Cursor> cursor;
  std::vector<TokenId> drafts;
  StatusOr<std::vector<grammar::Guide>> guides = std::vector<grammar::Guide>();

 private:
  friend class GuidePool;
  bool done = false;  // under the pool's mutex
};

// Thread-safe. The destructor drops the jobs that have not begun.
class GuidePool {
 public:
  explicit GuidePool(int threads);
  ~GuidePool();
  GuidePool(const GuidePool&) = delete;
  GuidePool& operator=(const GuidePool&) = delete;

  void Submit(std::shared_ptr<GuideJob> job);

  // Waits until `deadline` of the steady clock at most; whether the job is done.
  bool Done(const GuideJob& job, TimePoint deadline);

  // Returns when any job has ended since the last call, or after `timeout`.
  void AwaitAny(Duration timeout);

 private:
  void Loop();

  Mutex mutex_;
  CondVar wake_;
  CondVar done_;
  std::deque<std::shared_ptr<GuideJob>> queue_ GUARDED_BY(mutex_);
  bool any_done_ GUARDED_BY(mutex_) = false;
  bool stop_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvasir::engine
