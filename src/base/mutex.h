// std::mutex with clang's thread-safety annotations (checked by -Wthread-safety).
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define KVASIR_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define KVASIR_THREAD_ANNOTATION(x)
#endif
// Abseil's headers define legacy macros of the same names.
#undef GUARDED_BY
#undef REQUIRES
#undef EXCLUDES
#define GUARDED_BY(m) KVASIR_THREAD_ANNOTATION(guarded_by(m))
#define REQUIRES(m) KVASIR_THREAD_ANNOTATION(requires_capability(m))
#define EXCLUDES(m) KVASIR_THREAD_ANNOTATION(locks_excluded(m))

namespace kvasir {

class KVASIR_THREAD_ANNOTATION(capability("mutex")) Mutex {
 public:
  void lock() KVASIR_THREAD_ANNOTATION(acquire_capability()) { mutex_.lock(); }
  void unlock() KVASIR_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class KVASIR_THREAD_ANNOTATION(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) KVASIR_THREAD_ANNOTATION(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() KVASIR_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits on a Mutex that the caller holds through a MutexLock.
using CondVar = std::condition_variable_any;

}  // namespace kvasir
