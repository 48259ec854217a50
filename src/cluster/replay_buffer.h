// The batches published last, for subscribers that missed some.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace kvasir::cluster {

using Payload = std::shared_ptr<const std::vector<uint8_t>>;

// One thread at a time. The oldest go first.
class ReplayBuffer {
 public:
  ReplayBuffer(size_t max_batches, size_t max_bytes)
      : max_batches_(max_batches), max_bytes_(max_bytes) {}

  // REQUIRES: sequences grow.
  void Add(int64_t sequence, Payload payload) {
    bytes_ += payload->size();
    batches_.emplace_back(sequence, std::move(payload));
    while (batches_.size() > max_batches_ || bytes_ > max_bytes_) {
      bytes_ -= batches_.front().second->size();
      batches_.pop_front();
    }
  }

  // Those from `first` on, in order.
  void ForEach(int64_t first,
               const std::function<void(int64_t sequence, const Payload& payload)>& visit) const {
    for (const auto& [sequence, payload] : batches_) {
      if (sequence >= first) visit(sequence, payload);
    }
  }

 private:
  const size_t max_batches_;
  const size_t max_bytes_;
  size_t bytes_ = 0;
  std::deque<std::pair<int64_t, Payload>> batches_;
};

}  // namespace kvasir::cluster
