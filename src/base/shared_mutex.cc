#include "base/shared_mutex.h"

#include <thread>

namespace kvasir {
namespace {

// About a microsecond; after that the holder may well be waiting for the core we spin on.
constexpr int kSpins = 64;

template <typename Done>
void SpinUntil(const Done& done) {
  for (int spins = 0; !done(); ++spins) {
    if (spins >= kSpins) {
      std::this_thread::yield();
    } else {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }
}

}  // namespace

void SharedMutex::lock() {
  SpinUntil([&] {
    return !writing_.load(std::memory_order_relaxed) &&
           !writing_.exchange(true, std::memory_order_acquire);
  });
  phase_ ^= 1;
  const uint32_t before = came_.fetch_add(kWriter | phase_, std::memory_order_acq_rel);
  SpinUntil([&] { return left_.load(std::memory_order_acquire) == before; });
}

void SharedMutex::unlock() {
  came_.fetch_and(~kWriterBits, std::memory_order_release);
  writing_.store(false, std::memory_order_release);
}

void SharedMutex::lock_shared() {
  const uint32_t writer = came_.fetch_add(kReader, std::memory_order_acquire) & kWriterBits;
  if (writer == 0) return;
  SpinUntil([&] { return (came_.load(std::memory_order_acquire) & kWriterBits) != writer; });
}

void SharedMutex::unlock_shared() { left_.fetch_add(kReader, std::memory_order_release); }

}  // namespace kvasir
