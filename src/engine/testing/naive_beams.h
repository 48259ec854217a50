// For tests: beam search written down the plain way, over whole rows and whole outputs.
#pragma once

#include <absl/types/span.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "core/request.h"

namespace kvasir::engine {

struct NaiveHypothesis {
  std::vector<TokenId> tokens;
  double score = 0;
  bool stopped = false;  // by an end token

  friend bool operator==(const NaiveHypothesis&, const NaiveHypothesis&) = default;
};

struct NaiveBeamSearch {
  BeamSearch rules;
  size_t width = 1;
  size_t max_tokens = 1;
  std::vector<TokenId> ends;
  // Of each token of the vocabulary after an output: -infinity where it may not come.
  std::function<std::vector<double>(absl::Span<const TokenId> output)> logprobs;

  struct Beam {
    std::vector<TokenId> tokens;
    double sum = 0;
  };

  std::vector<NaiveHypothesis> Run() const {
    std::vector<Beam> live(1);
    std::vector<NaiveHypothesis> ended;
    for (size_t length = 1; !live.empty(); ++length) {
      std::vector<Beam> next;
      size_t rank = 0;
      for (const Beam& beam : Continuations(live)) {
        const bool stops = std::find(ends.begin(), ends.end(), beam.tokens.back()) != ends.end();
        if (stops || length == max_tokens) {
          if (rank < width) ended.push_back({beam.tokens, Score(beam), stops});
        } else if (next.size() < width) {
          next.push_back(beam);
        }
        ++rank;
      }
      std::stable_sort(ended.begin(), ended.end(),
                       [](const auto& a, const auto& b) { return a.score > b.score; });
      if (ended.size() > width) ended.resize(width);
      live = std::move(next);
      if (live.empty() || ended.size() < width) continue;
      if (rules.early_stopping || ended.back().score >= Score(live.front())) break;
    }
    return ended;
  }

  double Score(const Beam& beam) const {
    const double length = static_cast<double>(beam.tokens.size());
    return beam.sum / std::pow(length, static_cast<double>(rules.length_penalty));
  }

  // Of all beams by all tokens, the best first.
  std::vector<Beam> Continuations(const std::vector<Beam>& live) const {
    std::vector<Beam> all;
    for (const Beam& beam : live) {
      const std::vector<double> row = logprobs(beam.tokens);
      for (size_t id = 0; id < row.size(); ++id) {
        if (std::isinf(row[id])) continue;
        Beam& longer = all.emplace_back(beam);
        longer.tokens.push_back(static_cast<TokenId>(id));
        longer.sum += row[id];
      }
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Beam& a, const Beam& b) { return a.sum > b.sum; });
    return all;
  }
};

}  // namespace kvasir::engine
