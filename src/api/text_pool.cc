#include "api/text_pool.h"

#include <utility>

namespace kvasir::api {

TextPool::TextPool(int threads, size_t max_waiting) : max_waiting_(max_waiting) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

void TextPool::Stop() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
    queue_.clear();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool TextPool::Submit(std::function<void()> work) {
  {
    MutexLock lock(mutex_);
    if (stop_ || queue_.size() >= max_waiting_) return false;
    queue_.push_back(std::move(work));
  }
  wake_.notify_one();
  return true;
}

size_t TextPool::waiting() const {
  MutexLock lock(mutex_);
  return queue_.size();
}

void TextPool::Loop() {
  for (;;) {
    std::function<void()> work;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stop_) wake_.wait(mutex_);
      if (stop_) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace kvasir::api
