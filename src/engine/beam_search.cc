#include "engine/beam_search.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/check.h"

namespace kvasir::engine {

Beams::Beams(const BeamSearch& rules, int32_t width, int32_t max_tokens)
    : rules_(rules), width_(static_cast<size_t>(width)), max_tokens_(max_tokens) {}

std::vector<Beams::Step> Beams::Advance(absl::Span<const sample::BeamOffer> offers) {
  KVASIR_CHECK(!live_.empty() && offers.size() == live_.size(), "each live beam has an offer");
  ++length_;
  const bool last = length_ >= max_tokens_;
  const std::vector<Continuation> continuations = Order(offers);
  std::vector<Live> next;
  std::vector<Step> steps;
  for (size_t i = 0; i < continuations.size(); ++i) {
    const Continuation& c = continuations[i];
    const bool ends = c.candidate->ends;
    if (i < width_ && (ends || last)) {
      Keep({.node = AddNode(c, offers),
            .finish = ends ? FinishReason::kStop : FinishReason::kLength,
            .score = Score(c.sum)});
    } else if (!ends && !last && next.size() < width_) {
      next.push_back({.node = AddNode(c, offers), .sum = c.sum});
      steps.push_back({.parent = c.parent, .token = c.candidate->id});
    }
  }
  live_ = std::move(next);
  if (!Settled()) return steps;
  live_.clear();
  return {};
}

std::vector<Beams::Continuation> Beams::Order(absl::Span<const sample::BeamOffer> offers) const {
  std::vector<Continuation> all;
  for (size_t parent = 0; parent < offers.size(); ++parent) {
    for (const Candidate& candidate : offers[parent].candidates) {
      all.push_back({.parent = static_cast<int32_t>(parent),
                     .candidate = &candidate,
                     .sum = live_[parent].sum + candidate.logprob});
    }
  }
  std::sort(all.begin(), all.end(), [](const Continuation& a, const Continuation& b) {
    return std::tuple(-a.sum, a.parent, a.candidate->id) <
           std::tuple(-b.sum, b.parent, b.candidate->id);
  });
  return all;
}

int32_t Beams::AddNode(const Continuation& continuation,
                       absl::Span<const sample::BeamOffer> offers) {
  nodes_.push_back({.previous = live_[continuation.parent].node,
                    .out = offers[continuation.parent].Report(*continuation.candidate)});
  return static_cast<int32_t>(nodes_.size()) - 1;
}

// A sum is at most 0, and the score of 0 is 0 even where the power underflows.
double Beams::Score(double sum) const {
  return sum == 0 ? 0 : sum / std::pow(length_, static_cast<double>(rules_.length_penalty));
}

void Beams::Keep(const Ended& ended) {
  const auto place =
      std::upper_bound(ended_.begin(), ended_.end(), ended,
                       [](const Ended& a, const Ended& b) { return a.score > b.score; });
  ended_.insert(place, ended);
  if (ended_.size() > width_) ended_.pop_back();
}

// Whether what lives may be left behind.
bool Beams::Settled() const {
  if (live_.empty()) return true;
  if (ended_.size() < width_) return false;
  return rules_.early_stopping || Score(live_.front().sum) <= ended_.back().score;
}

std::vector<Hypothesis> Beams::Answer() const {
  std::vector<Hypothesis> answer;
  for (const Ended& ended : ended_) {
    Hypothesis& hypothesis = answer.emplace_back();
    hypothesis.finish = ended.finish;
    hypothesis.score = ended.score;
    for (int32_t node = ended.node; node >= 0; node = nodes_[node].previous) {
      hypothesis.tokens.push_back(nodes_[node].out);
    }
    std::reverse(hypothesis.tokens.begin(), hypothesis.tokens.end());
  }
  return answer;
}

}  // namespace kvasir::engine
