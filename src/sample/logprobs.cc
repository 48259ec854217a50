#include "sample/logprobs.h"

#include <algorithm>
#include <cmath>

#include "sample/weights.h"

namespace kvasir::sample {
namespace {

// The `count` best tokens, best first: a short sorted list that most tokens fail to enter.
std::vector<std::pair<TokenId, float>> TopTokens(absl::Span<const float> logits, size_t count) {
  std::vector<std::pair<TokenId, float>> top;
  if (count == 0) return top;
  for (size_t id = 0; id < logits.size(); ++id) {
    const float logit = logits[id];
    if (top.size() == count) {
      if (logit <= top.back().second) continue;
      top.pop_back();
    }
    const auto place = std::upper_bound(
        top.begin(), top.end(), logit, [](float l, const auto& entry) { return l > entry.second; });
    top.emplace(place, static_cast<TokenId>(id), logit);
  }
  return top;
}

}  // namespace

void FillLogprobs(absl::Span<const float> logits, int32_t top, TokenOut* out) {
  const float max = FindBest(logits)->logit;
  const WeightedRow row{logits, max};
  const double sum = static_cast<double>(SumWeights(row, 0, logits.size())) / kOne;
  const double log_sum = std::log(sum);
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - max - log_sum);
  };
  out->logprob = logprob(logits[out->id]);
  out->top_logprobs = TopTokens(logits, static_cast<size_t>(top));
  for (auto& [id, value] : out->top_logprobs) value = logprob(value);
}

}  // namespace kvasir::sample
