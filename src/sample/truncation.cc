#include "sample/truncation.h"

#include <algorithm>
#include <numeric>

namespace kvasir::sample {
namespace {

bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

uint64_t Sum(absl::Span<const Candidate> candidates) {
  uint64_t sum = 0;
  for (const Candidate& c : candidates) sum += c.weight;
  return sum;
}

// top_p of `total`, at least 1, so that a prefix that reaches it is not empty.
uint64_t Target(float top_p, uint64_t total) {
  const double target = static_cast<double>(top_p) * static_cast<double>(total);
  return std::clamp<uint64_t>(static_cast<uint64_t>(target), 1, total);
}

}  // namespace

const std::vector<Candidate>& Truncation::Keep(const WeightedRow& row, int32_t top_k, float top_p) {
  Count(row);
  if (top_k > 0) {
    Gather(row, BinOfCount(top_k));
    KeepFirst(top_k);
    if (top_p < 1) KeepWeight(Target(top_p, Sum(candidates_)));
  } else {
    const uint64_t total = std::accumulate(bin_weight_, bin_weight_ + kBins, uint64_t{0});
    const uint64_t target = Target(top_p, total);
    Gather(row, BinOfWeight(target));
    KeepWeight(target);
  }
  return candidates_;
}

void Truncation::Count(const WeightedRow& row) {
  std::fill(std::begin(bin_weight_), std::end(bin_weight_), 0);
  std::fill(std::begin(bin_count_), std::end(bin_count_), 0);
  for (size_t first = 0; first < row.logits.size(); first += kLanes) {
    const std::array<float, kLanes> scaled = row.Scaled(first);
    const std::array<uint64_t, kLanes> weights = row.Weights(scaled);
    std::array<int32_t, kLanes> bins;
    for (int i = 0; i < kLanes; ++i) {
      const float bin = -scaled[i] * kBinsPerUnit;
      bins[i] = static_cast<int32_t>(bin < kBins - 1 ? bin : kBins - 1);
    }
    for (int i = 0; i < kLanes; ++i) {
      bin_weight_[bins[i]] += weights[i];
      bin_count_[bins[i]] += weights[i] != 0;
    }
  }
}

int Truncation::BinOfCount(uint64_t count) const {
  uint64_t sum = 0;
  for (int bin = 0; bin < kBins; ++bin) {
    sum += bin_count_[bin];
    if (sum >= count) return bin;
  }
  return kBins - 1;
}

int Truncation::BinOfWeight(uint64_t weight) const {
  uint64_t sum = 0;
  for (int bin = 0; bin < kBins; ++bin) {
    sum += bin_weight_[bin];
    if (sum >= weight) return bin;
  }
  return kBins - 1;
}

// Every token of weight > 0 in the bins up to `last_bin`.
void Truncation::Gather(const WeightedRow& row, int last_bin) {
  const float below = last_bin == kBins - 1 ? -40.0f : -(last_bin + 1) / kBinsPerUnit;
  candidates_.clear();
  for (size_t first = 0; first < row.logits.size(); first += kLanes) {
    const std::array<float, kLanes> scaled = row.Scaled(first);
    int32_t any = 0;
    for (int i = 0; i < kLanes; ++i) any |= scaled[i] > below;
    if (!any) continue;
    const std::array<uint64_t, kLanes> weights = row.Weights(scaled);
    for (int i = 0; i < kLanes; ++i) {
      if (scaled[i] > below && weights[i] != 0) {
        candidates_.push_back({static_cast<TokenId>(first + i), row.logits[first + i], weights[i]});
      }
    }
  }
}

void Truncation::KeepFirst(int32_t count) {
  if (candidates_.size() <= static_cast<size_t>(count)) return;
  order_ = candidates_;
  std::nth_element(order_.begin(), order_.begin() + count - 1, order_.end(), Better);
  DropAfter(order_[count - 1]);
}

// A binary search for the prefix's last token that orders only the half it goes on with.
void Truncation::KeepWeight(uint64_t target) {
  order_ = candidates_;
  absl::Span<Candidate> range = absl::MakeSpan(order_);
  while (range.size() > 1) {
    const size_t half = range.size() / 2;
    std::nth_element(range.begin(), range.begin() + half, range.end(), Better);
    const uint64_t weight = Sum(range.first(half));
    if (weight >= target) {
      range = range.first(half);
    } else {
      target -= weight;
      range = range.subspan(half);
    }
  }
  const Candidate last = range.front();
  DropAfter(last);
}

void Truncation::DropAfter(const Candidate& last) {
  std::erase_if(candidates_, [&last](const Candidate& c) { return Better(last, c); });
}

}  // namespace kvasir::sample
