// SIGINT and SIGTERM as something to wait for.
#pragma once

#include <atomic>
#include <condition_variable>
#include <thread>

#include "base/mutex.h"

namespace kvasir::cli {

// One at a time, made before any other thread, because threads inherit the mask that it sets. Until
// Wait() is called a signal ends the process at once, as it would without this; so does a second
// one afterwards.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // Returns when the first signal comes.
  void Wait();

 private:
  void Listen();

  Mutex mutex_;
  CondVar came_;
  bool waiting_ GUARDED_BY(mutex_) = false;
  bool signalled_ GUARDED_BY(mutex_) = false;
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace kvasir::cli
