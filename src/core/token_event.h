// What comes back from an engine for one request, in order.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "core/sampling_params.h"

namespace kvasir {

struct TokenOut {
  TokenId id = 0;
  // Natural-log probabilities under the raw softmax (before temperature and truncation); filled
  // only when the request asked for them.
  float logprob = 0.0f;
  std::vector<std::pair<TokenId, float>> top_logprobs;  // best first, ties to the lower id

  friend bool operator==(const TokenOut&, const TokenOut&) = default;
};

enum class FinishReason {
  // An end token or a stop token id, which is the last of `tokens`. With beam search, and no
  // tokens:
  // there are fewer outputs than choices.
  kStop,
  kLength,     // max_tokens (at once if it is 0), or the model's context is full
  kCancelled,  // Cancel was called, or the deadline passed
  kError,      // see `error`
};

// One step's news about one choice. Exactly one event with `finish` comes per choice.
struct TokenEvent {
  int32_t choice = 0;
  std::vector<TokenOut> tokens;
  // Of a request with prompt_logprobs: the next prompt tokens, from the second on, in order. They
  // come once, whatever n is, before any output token.
  std::vector<TokenOut> prompt;
  std::vector<float> embedding;  // of a request with pooling, once it is whole; not normalised
  std::optional<FinishReason> finish;
  Status error;               // set with kError
  int32_t cached_tokens = 0;  // prompt tokens that were not computed, the same in every event
};

}  // namespace kvasir
