#include "cli/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <utility>

namespace kvasir::cli {

sigset_t StopSignal::Signals() const {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  if (takes_hangup_) sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGUSR2);  // from the destructor, to end the thread
  return set;
}

StopSignal::StopSignal(bool takes_hangup) : takes_hangup_(takes_hangup) {
  const sigset_t set = Signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { Listen(); });
}

StopSignal::~StopSignal() {
  done_ = true;
  pthread_kill(thread_.native_handle(), SIGUSR2);
  thread_.join();
}

void StopSignal::Listen() {
  const sigset_t set = Signals();
  for (int number = 0; sigwait(&set, &number) == 0;) {
    if (number == SIGUSR2) {
      if (done_) return;
      continue;
    }
    MutexLock lock(mutex_);
    if (number == SIGHUP) {
      hung_up_ = waiting_;
    } else {
      if (!waiting_ || signalled_) _exit(128 + number);
      signalled_ = true;
    }
    came_.notify_all();
  }
}

void StopSignal::Raise() {
  MutexLock lock(mutex_);
  raised_ = true;
  came_.notify_all();
}

void StopSignal::Wait(const std::function<void()>& reload) {
  for (;;) {
    {
      MutexLock lock(mutex_);
      waiting_ = true;
      while (!signalled_ && !raised_ && !hung_up_) came_.wait(mutex_);
      if (signalled_ || raised_) return;
      hung_up_ = false;
    }
    reload();
  }
}

}  // namespace kvasir::cli
