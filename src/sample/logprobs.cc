#include "sample/logprobs.h"

#include <algorithm>
#include <cmath>

#include "sample/weights.h"

namespace kvasir::sample {

LogSoftmax::LogSoftmax(absl::Span<const float> logits) : max_(FindBest(logits)->logit) {
  const WeightedRow row{logits, max_};
  log_sum_ = std::log(static_cast<double>(SumWeights(row, 0, logits.size())) / kOne);
}

// A short sorted list that most tokens fail to enter.
std::vector<std::pair<TokenId, float>> TopTokens(absl::Span<const float> logits, size_t count,
                                                 absl::Span<const TokenId> except) {
  std::vector<std::pair<TokenId, float>> top;
  if (count == 0) return top;
  for (size_t i = 0; i < logits.size(); ++i) {
    const TokenId id = static_cast<TokenId>(i);
    const float logit = logits[i];
    if (top.size() == count && logit <= top.back().second) continue;
    if (std::find(except.begin(), except.end(), id) != except.end()) continue;
    if (top.size() == count) top.pop_back();
    const auto place = std::upper_bound(
        top.begin(), top.end(), logit, [](float l, const auto& entry) { return l > entry.second; });
    top.emplace(place, id, logit);
  }
  return top;
}

std::vector<std::pair<TokenId, float>> TopLogprobs(absl::Span<const float> logits,
                                                   const LogSoftmax& softmax, int32_t top) {
  std::vector<std::pair<TokenId, float>> tokens = TopTokens(logits, static_cast<size_t>(top));
  for (auto& [id, value] : tokens) value = static_cast<float>(softmax.Of(value));
  return tokens;
}

void FillLogprobs(absl::Span<const float> logits, int32_t top, TokenOut* out) {
  const LogSoftmax softmax(logits);
  out->logprob = static_cast<float>(softmax.Of(logits[out->id]));
  out->top_logprobs = TopLogprobs(logits, softmax, top);
}

}  // namespace kvasir::sample
