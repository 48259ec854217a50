// Counts of observations by size, as Prometheus wants them. A value that copies without allocating.
#pragma once

#include <absl/types/span.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace kvasir {

class Histogram {
 public:
  static constexpr size_t kMostBounds = 15;

  // `bounds` are the buckets' inclusive upper bounds, ascending, at most kMostBounds, and outlive
  // the histogram; a last bucket has none.
  explicit Histogram(absl::Span<const double> bounds) : bounds_(bounds) {}

  void Observe(double value) {
    const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
    ++counts_[bound - bounds_.begin()];
    sum_ += value;
  }

  absl::Span<const double> bounds() const { return bounds_; }
  // One more than bounds.
  absl::Span<const uint64_t> counts() const {
    return absl::MakeConstSpan(counts_).first(bounds_.size() + 1);
  }
  double sum() const { return sum_; }

 private:
  absl::Span<const double> bounds_;
  std::array<uint64_t, kMostBounds + 1> counts_{};
  double sum_ = 0;
};

}  // namespace kvasir
