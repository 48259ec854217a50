// What the front hands to an engine: an immutable value. It holds everything that decides the
// answer, so that any engine of the same model gives the same tokens.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/hash128.h"
#include "core/constraint.h"
#include "core/sampling_params.h"

namespace kvasir {

// What of the prompt's hidden states makes an embedding.
enum class Pooling { kNone, kMean, kLast };

// Beam search, with the meaning that Hugging Face Transformers gives it.
//
// The score of an output is the sum of its tokens' log-probabilities over the power
// `length_penalty` of its length, end token included. They are those under the processed
// distribution: the softmax of the logits after biases, penalties, masks and the constraint, at
// temperature 1, from which a request of that temperature samples. So the sum is the
// log-probability of the output as this request defines it, and what a constraint leaves no choice
// about costs nothing. (Transformers processes log-probabilities instead and does not normalise
// them again; vLLM sums the raw ones. Without processors all three are the same.)
struct BeamSearch {
  float length_penalty = 1.0f;  // > 0 favours long outputs, < 0 short ones
  // Whether to stop as soon as n outputs have ended. Else the search goes on while the best live
  // beam, if it ended with the sum and length that it has, would beat the worst of them.
  bool early_stopping = false;
};

struct Request {
  std::string id;                   // unique among the requests in flight
  std::vector<TokenId> prompt_ids;  // at least one
  // Chained hashes of the prompt's full 16-token units (kv/block_hash.h), computed at the front
  // under the model's cache root and the request's cache salt.
  std::vector<Hash128> unit_hashes;
  Hash128 hash_root;  // parent of the first unit; hashing of output tokens goes on from it
  SamplingParams sampling;
  std::optional<Constraint> constraint;  // of the whole output of every choice
  // sampling.n hypotheses are kept instead of sampled: choice 0 is the one of the best score.
  // Temperature, truncation and seed have no say. The events with tokens come when the search is
  // over, one a choice. Where fewer than n outputs exist, because a constraint or the allowed
  // tokens admit no more, the choices left over finish with kStop and no token.
  std::optional<BeamSearch> beams;
  // Of each prompt token but the first, given those before it: -1 none, k >= 0 its log-probability
  // and the k best alternatives.
  int32_t prompt_logprobs = -1;
  Pooling pooling = Pooling::kNone;  // not kNone: the answer is an embedding, and no tokens
  int32_t priority = 0;              // lower is sooner
  TimePoint arrival{};
  TimePoint deadline = TimePoint::max();  // past it the engine ends the request

  // Every position of the prompt must be computed, whatever the cache holds.
  bool NeedsPromptRows() const { return prompt_logprobs >= 0 || pooling != Pooling::kNone; }
};

}  // namespace kvasir
