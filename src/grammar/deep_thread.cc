#include "grammar/deep_thread.h"

#include <fmt/format.h>
#include <pthread.h>

#include <cstring>
#include <memory>
#include <utility>

namespace kvasir::grammar {

Status RunOnDeepThread(size_t stack_bytes, std::function<void()> work) {
  auto owned = std::make_unique<std::function<void()>>(std::move(work));
  const auto run = [](void* argument) -> void* {
    const std::unique_ptr<std::function<void()>> taken(
        static_cast<std::function<void()>*>(argument));
    (*taken)();
    return nullptr;
  };
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, stack_bytes);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, run, owned.get());
  pthread_attr_destroy(&attributes);
  if (error != 0) {
    return absl::ResourceExhaustedError(fmt::format("no thread: {}", std::strerror(error)));
  }
  owned.release();  // the thread's now
  return absl::OkStatus();
}

}  // namespace kvasir::grammar
