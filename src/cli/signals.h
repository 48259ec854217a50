// SIGINT and SIGTERM as something to wait for, and SIGHUP as the wish to reload.
#pragma once

#include <signal.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <thread>

#include "base/mutex.h"

namespace kvasir::cli {

// One at a time, made before any other thread, because threads inherit the mask that it sets. Until
// Wait() is called a signal ends the process at once, as it would without this; so does a second
// one afterwards.
class StopSignal {
 public:
  // `takes_hangup`: SIGHUP is a wish to reload, and lost until Wait() is called. Otherwise it ends
  // the process, as a terminal that closes expects.
  explicit StopSignal(bool takes_hangup);
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // Returns when the first signal to stop comes, or Raise() was called; meanwhile calls `reload` at
  // each SIGHUP.
  void Wait(const std::function<void()>& reload);

  // As if a signal to stop had come once Wait() is called. From any thread.
  void Raise();

 private:
  sigset_t Signals() const;
  void Listen();

  const bool takes_hangup_;
  Mutex mutex_;
  CondVar came_;
  bool waiting_ GUARDED_BY(mutex_) = false;
  bool signalled_ GUARDED_BY(mutex_) = false;
  bool raised_ GUARDED_BY(mutex_) = false;
  bool hung_up_ GUARDED_BY(mutex_) = false;
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace kvasir::cli
