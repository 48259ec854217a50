// Log-probabilities as the API reports them: under the softmax of the raw logits, before biases,
// penalties, temperature and truncation (vLLM's default).
#pragma once

#include <absl/types/span.h>

#include <cstdint>

#include "core/token_event.h"

namespace kvasir::sample {

// Fills out->logprob for out->id, and out->top_logprobs with the `top` best tokens.
// REQUIRES: finite logits.
void FillLogprobs(absl::Span<const float> logits, int32_t top, TokenOut* out);

}  // namespace kvasir::sample
