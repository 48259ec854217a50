#include "engine/guide_pool.h"

#include <utility>

namespace kvasir::engine {

GuidePool::GuidePool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

GuidePool::~GuidePool() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void GuidePool::Submit(std::shared_ptr<GuideJob> job) {
  {
    MutexLock lock(mutex_);
    queue_.push_back(std::move(job));
  }
  wake_.notify_one();
}

bool GuidePool::Done(const GuideJob& job, TimePoint deadline) {
  MutexLock lock(mutex_);
  while (!job.done && std::chrono::steady_clock::now() < deadline) {
    done_.wait_until(mutex_, deadline);
  }
  return job.done;
}

void GuidePool::AwaitAny(Duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  MutexLock lock(mutex_);
  while (!any_done_ && std::chrono::steady_clock::now() < deadline) {
    done_.wait_until(mutex_, deadline);
  }
  any_done_ = false;
}

void GuidePool::Loop() {
  while (true) {
    std::shared_ptr<GuideJob> job;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stop_) wake_.wait(mutex_);
      if (stop_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    job->guides = job->cursor->GuideDrafts(job->drafts);
    {
      MutexLock lock(mutex_);
      job->done = true;
      any_done_ = true;
    }
    done_.notify_all();
  }
}

}  // namespace kvasir::engine
