// What changes the raw logits before a token is chosen. The order and the meaning are vLLM's:
// allowed_token_ids, bad_words, the mask of min_tokens, logit_bias, the penalties; then a
// constraint's mask. Where a constraint
// leaves end tokens alone, min_tokens gives way.
#pragma once

#include <absl/types/span.h>

#include <cstdint>

#include "core/sampling_params.h"
#include "sample/token_counts.h"

namespace kvasir::sample {

// What decides the next token besides the logits.
struct Position {
  int32_t choice = 0;
  int32_t index = 0;                    // output tokens before this one
  const TokenCounts* counts = nullptr;  // needed when UsesPenalties(params)
  absl::Span<const TokenId> output;     // the output tokens before this one, `index` of them
  absl::Span<const TokenId> eos_ids;    // the model's end tokens
  absl::Span<const uint32_t> allowed;   // a constraint's mask (grammar/matcher.h); empty: all
};

// True when ProcessLogits would change nothing.
bool LeavesLogits(const SamplingParams& params, const Position& position);

// Changes `logits`, [vocab], in place. A masked token becomes -infinity.
void ProcessLogits(const SamplingParams& params, const Position& position,
                   absl::Span<float> logits);

// Whether `token` ends the output: an end token of the model, unless ignored, or a stop id.
bool IsEnd(const SamplingParams& params, absl::Span<const TokenId> eos_ids, TokenId token);

}  // namespace kvasir::sample
