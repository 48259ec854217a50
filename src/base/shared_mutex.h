// A mutex that readers share, for sections of a few microseconds: who waits spins for a moment and
// then gives its core away, but does not sleep. Phase-fair, so that neither side can starve the
// other: a writer that waits keeps later readers out, and one that leaves lets in all readers that
// came meanwhile, before the next writer. Brandenburg and Anderson, "Spin-Based Reader-Writer
// Synchronization for Multiprocessor Real-Time Systems" (2010), with an unfair lock among writers.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/mutex.h"

#undef REQUIRES_SHARED
#define REQUIRES_SHARED(m) KVASIR_THREAD_ANNOTATION(requires_shared_capability(m))

namespace kvasir {

class KVASIR_THREAD_ANNOTATION(capability("mutex")) SharedMutex {
 public:
  void lock() KVASIR_THREAD_ANNOTATION(acquire_capability());
  void unlock() KVASIR_THREAD_ANNOTATION(release_capability());
  void lock_shared() KVASIR_THREAD_ANNOTATION(acquire_shared_capability());
  void unlock_shared() KVASIR_THREAD_ANNOTATION(release_shared_capability());

 private:
  // The counts of readers wrap around above the bits of the writer.
  static constexpr uint32_t kReader = 4;
  static constexpr uint32_t kWriterBits = 3;
  static constexpr uint32_t kWriter = 2;  // its other bit tells a writer from the one before it

  alignas(64) std::atomic<uint32_t> came_{0};  // readers that ever came, and the writer's bits
  alignas(64) std::atomic<uint32_t> left_{0};  // readers that left
  alignas(64) std::atomic<bool> writing_{false};
  uint32_t phase_ = 0;  // the writer's
};

class KVASIR_THREAD_ANNOTATION(scoped_lockable) WriterLock {
 public:
  explicit WriterLock(SharedMutex& mutex) KVASIR_THREAD_ANNOTATION(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~WriterLock() KVASIR_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  SharedMutex& mutex_;
};

class KVASIR_THREAD_ANNOTATION(scoped_lockable) ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mutex) KVASIR_THREAD_ANNOTATION(acquire_shared_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock_shared();
  }
  ~ReaderLock() KVASIR_THREAD_ANNOTATION(release_generic_capability()) { mutex_.unlock_shared(); }
  ReaderLock(const ReaderLock&) = delete;
  ReaderLock& operator=(const ReaderLock&) = delete;

 private:
  SharedMutex& mutex_;
};

}  // namespace kvasir
