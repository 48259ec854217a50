#include "sample/logits_processors.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>
#include <vector>

#include "grammar/matcher.h"

namespace kvasir::sample {
namespace {

// Whether a constraint's mask holds nothing but end tokens.
bool AllowsEndsAlone(const Position& position) {
  if (position.allowed.empty()) return false;
  int64_t others = 0;
  for (const uint32_t word : position.allowed) others += std::popcount(word);
  for (const TokenId id : position.eos_ids) others -= grammar::Allows(position.allowed, id);
  return others == 0;
}

bool MasksEnd(const SamplingParams& params, const Position& position) {
  return position.index < params.min_tokens && !AllowsEndsAlone(position);
}

void KeepAllowed(absl::Span<const uint32_t> allowed, absl::Span<float> logits) {
  for (size_t first = 0; first < logits.size(); first += 32) {
    const uint32_t word = allowed[first / 32];
    if (word == ~uint32_t{0}) continue;
    const size_t end = std::min(first + 32, logits.size());
    for (size_t id = first; id < end; ++id) {
      if ((word >> (id - first) & 1) == 0) logits[id] = -std::numeric_limits<float>::infinity();
    }
  }
}

void Mask(absl::Span<const TokenId> ids, absl::Span<float> logits) {
  for (TokenId id : ids) {
    if (static_cast<size_t>(id) < logits.size()) {
      logits[id] = -std::numeric_limits<float>::infinity();
    }
  }
}

void KeepOnly(absl::Span<const TokenId> ids, absl::Span<float> logits) {
  std::vector<std::pair<TokenId, float>> kept;
  for (const TokenId id : ids) kept.emplace_back(id, logits[id]);
  std::fill(logits.begin(), logits.end(), -std::numeric_limits<float>::infinity());
  for (const auto& [id, logit] : kept) logits[id] = logit;
}

// Whether the output ends with all of `word` but its last token.
bool WouldComplete(absl::Span<const TokenId> word, absl::Span<const TokenId> output) {
  if (word.empty() || word.size() - 1 > output.size()) return false;
  const absl::Span<const TokenId> begin = word.first(word.size() - 1);
  return std::equal(begin.begin(), begin.end(), output.end() - begin.size());
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
  return params.allowed_token_ids.empty() && params.bad_words.empty() &&
         params.logit_bias.empty() && position.allowed.empty() && !MasksEnd(params, position) &&
         !UsesPenalties(params);
}

void ProcessLogits(const SamplingParams& params, const Position& position,
                   absl::Span<float> logits) {
  if (!params.allowed_token_ids.empty()) KeepOnly(params.allowed_token_ids, logits);
  for (const std::vector<TokenId>& word : params.bad_words) {
    if (WouldComplete(word, position.output)) Mask({word.back()}, logits);
  }
  if (MasksEnd(params, position)) {
    Mask(position.eos_ids, logits);
    Mask(params.stop_token_ids, logits);
  }
  for (const auto& [id, bias] : params.logit_bias) logits[id] += bias;
  if (UsesPenalties(params)) Penalize(params, *position.counts, logits);
  if (!position.allowed.empty()) KeepAllowed(position.allowed, logits);
}

bool IsEnd(const SamplingParams& params, absl::Span<const TokenId> eos_ids, TokenId token) {
  const auto contains = [token](absl::Span<const TokenId> ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  return (!params.ignore_eos && contains(eos_ids)) || contains(params.stop_token_ids);
}

}  // namespace kvasir::sample
