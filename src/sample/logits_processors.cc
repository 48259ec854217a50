#include "sample/logits_processors.h"

#include <algorithm>
#include <limits>

namespace kvasir::sample {
namespace {

bool MasksEnd(const SamplingParams& params, const Position& position) {
  return position.index < params.min_tokens;
}

void Mask(absl::Span<const TokenId> ids, absl::Span<float> logits) {
  for (TokenId id : ids) {
    if (static_cast<size_t>(id) < logits.size()) {
      logits[id] = -std::numeric_limits<float>::infinity();
    }
  }
}

void Penalize(const SamplingParams& params, const TokenCounts& counts, absl::Span<float> logits) {
  for (const auto& [id, count] : counts.counts()) {
    float& logit = logits[id];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (count == 0) continue;
    logit -= params.frequency_penalty * static_cast<float>(count);
    logit -= params.presence_penalty;
  }
}

}  // namespace

bool UsesPenalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.frequency_penalty != 0.0f ||
         params.presence_penalty != 0.0f;
}

bool LeavesLogits(const SamplingParams& params, const Position& position) {
  return params.logit_bias.empty() && !MasksEnd(params, position) && !UsesPenalties(params);
}

void ProcessLogits(const SamplingParams& params, const Position& position,
                   absl::Span<float> logits) {
  if (MasksEnd(params, position)) {
    Mask(position.eos_ids, logits);
    Mask(params.stop_token_ids, logits);
  }
  for (const auto& [id, bias] : params.logit_bias) logits[id] += bias;
  if (UsesPenalties(params)) Penalize(params, *position.counts, logits);
}

bool IsEnd(const SamplingParams& params, absl::Span<const TokenId> eos_ids, TokenId token) {
  const auto contains = [token](absl::Span<const TokenId> ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  return (!params.ignore_eos && contains(eos_ids)) || contains(params.stop_token_ids);
}

}  // namespace kvasir::sample
