#include "cli/signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace kvasir::cli {
namespace {

sigset_t StopSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGUSR2);  // from the destructor, to end the thread
  return set;
}

}  // namespace

StopSignal::StopSignal() {
  const sigset_t set = StopSet();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { Listen(); });
}

StopSignal::~StopSignal() {
  done_ = true;
  pthread_kill(thread_.native_handle(), SIGUSR2);
  thread_.join();
}

void StopSignal::Listen() {
  const sigset_t set = StopSet();
  for (int number = 0; sigwait(&set, &number) == 0;) {
    if (number == SIGUSR2) {
      if (done_) return;
      continue;
    }
    MutexLock lock(mutex_);
    if (!waiting_ || signalled_) _exit(128 + number);
    signalled_ = true;
    came_.notify_all();
  }
}

void StopSignal::Wait() {
  MutexLock lock(mutex_);
  waiting_ = true;
  while (!signalled_) came_.wait(mutex_);
}

}  // namespace kvasir::cli
