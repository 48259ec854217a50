// How the next token of a sequence is chosen. An immutable value; validated once, at the front.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/status.h"

namespace kvasir {

using TokenId = int32_t;

struct SamplingParams {
  float temperature = 1.0f;                           // 0 is greedy
  int32_t top_k = 0;                                  // 0 keeps all
  float top_p = 1.0f;                                 // (0, 1]
  float min_p = 0.0f;                                 // [0, 1]
  float presence_penalty = 0.0f;                      // [-2, 2], over the output tokens
  float frequency_penalty = 0.0f;                     // [-2, 2], over the output tokens
  float repetition_penalty = 1.0f;                    // (0, 10], over prompt and output tokens
  std::vector<std::pair<TokenId, float>> logit_bias;  // added to the raw logits; ids unique
  std::vector<TokenId> allowed_token_ids;             // empty: all; end tokens must be named too
  std::vector<std::vector<TokenId>> bad_words;        // sequences that the output never completes
  // Drawn once at the front when the client gave none, so that every replay draws the same.
  uint64_t seed = 0;
  int32_t n = 1;            // parallel choices
  int32_t max_tokens = 16;  // output tokens per choice; 0 only where the prompt is asked about
  int32_t min_tokens = 0;   // no end token is chosen before this many
  std::vector<TokenId> stop_token_ids;
  bool ignore_eos = false;
  // -1: none; k >= 0: the chosen token's log-probability and the k best alternatives.
  int32_t logprobs = -1;

  friend bool operator==(const SamplingParams&, const SamplingParams&) = default;
};

// The message of the error starts with the name of the field at fault, as the API spells it.
Status Validate(const SamplingParams& params, int32_t vocab_size);

}  // namespace kvasir
