#include "sample/truncation.h"

#include <algorithm>
#include <numeric>

namespace kvasir::sample {
namespace {

bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// A distance to the maximum at which the weight is surely 0.
constexpr float kNoWeight = -40.0f;

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

struct Edge {
  int bin = 0;
  uint64_t before = 0;  // the sum of the bins before it
};

// The first bin up to which the sum reaches `target`, or the last bin of all.
Edge FindEdge(absl::Span<const uint64_t> bins, uint64_t target) {
  Edge edge;
  const int last = static_cast<int>(bins.size()) - 1;
  while (edge.bin < last && edge.before + bins[edge.bin] < target) edge.before += bins[edge.bin++];
  return edge;
}

}  // namespace

const std::vector<Candidate>& Truncation::Keep(const WeightedRow& row, int32_t top_k, float top_p) {
  Count(row);
  if (top_k > 0) {
    const Edge edge = FindEdge(bin_count_, top_k);
    Gather(row, edge.bin);
    KeepFirst(top_k - edge.before);
    if (top_p >= 1) return candidates_;
    edge_ = candidates_;
    KeepWeight(Target(top_p, Sum(candidates_)));
  } else {
    const uint64_t total = std::accumulate(bin_weight_, bin_weight_ + kBins, uint64_t{0});
    const uint64_t target = Target(top_p, total);
    const Edge edge = FindEdge(bin_weight_, target);
    Gather(row, edge.bin);
    KeepWeight(target - edge.before);
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

// Every token of weight > 0 in the bins up to `last_bin`; those of that bin are the edge.
void Truncation::Gather(const WeightedRow& row, int last_bin) {
  const float edge = -static_cast<float>(last_bin) / kBinsPerUnit;
  const float below = last_bin == kBins - 1 ? kNoWeight : edge - 1 / kBinsPerUnit;
  candidates_.clear();
  edge_.clear();
  for (size_t first = 0; first < row.logits.size(); first += kLanes) {
    const std::array<float, kLanes> scaled = row.Scaled(first);
    int32_t any = 0;
    for (int i = 0; i < kLanes; ++i) any |= scaled[i] > below;
    if (!any) continue;
    const std::array<uint64_t, kLanes> weights = row.Weights(scaled);
    for (int i = 0; i < kLanes; ++i) {
      if (!(scaled[i] > below) || weights[i] == 0) continue;
      const auto id = static_cast<TokenId>(first + i);
      candidates_.push_back({id, row.logits[id], weights[i]});
      if (scaled[i] <= edge) edge_.push_back(candidates_.back());
    }
  }
}

// Keeps the candidates up to the edge's `count`-th.
void Truncation::KeepFirst(uint64_t count) {
  if (edge_.size() <= count) return;
  const auto last = edge_.begin() + static_cast<ptrdiff_t>(count) - 1;
  std::nth_element(edge_.begin(), last, edge_.end(), Better);
  DropAfter(*last);
}

// Keeps the candidates up to where the edge's weight reaches `target`: a binary search that
// orders only the half it goes on with.
void Truncation::KeepWeight(uint64_t target) {
  absl::Span<Candidate> range = absl::MakeSpan(edge_);
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
  DropAfter(range.front());
}

void Truncation::DropAfter(const Candidate& last) {
  std::erase_if(candidates_, [&last](const Candidate& c) { return Better(last, c); });
}

}  // namespace kvasir::sample
