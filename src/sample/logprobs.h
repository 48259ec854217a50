// Log-probabilities as the API reports them: under the softmax of the raw logits, before biases,
// penalties, temperature and truncation (vLLM's default).
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "core/token_event.h"

namespace kvasir::sample {

// The log-softmax of a row, summed up once.
class LogSoftmax {
 public:
  // REQUIRES: neither NaN nor +infinity, and a finite logit. -infinity marks a masked token.
  explicit LogSoftmax(absl::Span<const float> logits);

  double Of(float logit) const { return static_cast<double>(logit) - max_ - log_sum_; }

 private:
  float max_;
  double log_sum_;
};

// The `count` tokens of the largest logits that are not among `except`, best first, ties to the
// lower id.
std::vector<std::pair<TokenId, float>> TopTokens(absl::Span<const float> logits, size_t count,
                                                 absl::Span<const TokenId> except = {});

// The `top` best tokens with their log-probabilities.
std::vector<std::pair<TokenId, float>> TopLogprobs(absl::Span<const float> logits,
                                                   const LogSoftmax& softmax, int32_t top);

// Fills out->logprob for out->id, and out->top_logprobs with the `top` best tokens.
// REQUIRES: finite logits.
void FillLogprobs(absl::Span<const float> logits, int32_t top, TokenOut* out);

}  // namespace kvasir::sample
