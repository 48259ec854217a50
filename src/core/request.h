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

// Of sampling.n hypotheses that are kept instead of sampled choices.
struct BeamSearch {
  float length_penalty = 1.0f;
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
  // Of each prompt token but the first, given those before it: -1 none, k >= 0 its log-probability
  // and the k best alternatives.
  int32_t prompt_logprobs = -1;
  std::optional<BeamSearch> beams;
  Pooling pooling = Pooling::kNone;  // not kNone: the answer is an embedding, and no tokens
  int32_t priority = 0;              // lower is sooner
  TimePoint arrival{};
  TimePoint deadline = TimePoint::max();  // past it the engine ends the request

  // Every position of the prompt must be computed, whatever the cache holds.
  bool NeedsPromptRows() const { return prompt_logprobs >= 0 || pooling != Pooling::kNone; }
};

}  // namespace kvasir
