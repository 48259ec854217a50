#include "sample/sampler.h"

#include <cmath>
#include <numeric>

#include "sample/logprobs.h"
#include "sample/philox.h"
#include "sample/weights.h"

namespace kvasir::sample {
namespace {

constexpr float kGreedyBelow = 1e-5f;   // as in vLLM
constexpr size_t kGroup = 16 * kLanes;  // tokens whose weights are summed up together

// A number in [0, total), uniform but for total / 2^64.
uint64_t Below(uint64_t noise, uint64_t total) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(noise) * total) >> 64);
}

TokenId DrawFrom(absl::Span<const Candidate> candidates, uint64_t noise) {
  uint64_t total = 0;
  for (const Candidate& c : candidates) total += c.weight;
  uint64_t left = Below(noise, total);
  for (const Candidate& c : candidates) {
    if (left < c.weight) return c.id;
    left -= c.weight;
  }
  return candidates.back().id;
}

Status NoNumbers() { return absl::InternalError("the model computed logits that are no numbers"); }

uint64_t MinWeight(float min_p) {
  return static_cast<uint64_t>(std::max(1.0, static_cast<double>(min_p) * kOne));
}

bool IsGreedy(const SamplingParams& params) { return params.temperature < kGreedyBelow; }

}  // namespace

RowDraw DrawOf(const SamplingParams& params, int32_t choice, int32_t index) {
  if (IsGreedy(params)) return RowDraw{};
  return {.temperature = params.temperature,
          .min_weight = MinWeight(params.min_p),
          .top_k = params.top_k,
          .top_p = params.top_p,
          .noise = Noise(params.seed, choice, index)};
}

StatusOr<TokenOut> Sampler::Sample(absl::Span<const float> logits, const SamplingParams& params,
                                   const Position& position) {
  if (!AllFinite(logits)) return NoNumbers();
  const std::optional<TokenId> id =
      Draw(Processed(logits, params, position), DrawOf(params, position.choice, position.index));
  if (!id) return NoTokenLeft();
  return Report(logits, params.logprobs, *id);
}

Status Sampler::NoTokenLeft() {
  return absl::InternalError(
      "allowed tokens, biases, penalties, min_tokens and the constraint leave no token to choose");
}

StatusOr<TokenOut> Sampler::Drawn(TokenId token) {
  if (token < 0) return NoNumbers();
  return TokenOut{.id = token};
}

StatusOr<TokenOut> Sampler::Report(absl::Span<const float> logits, int32_t logprobs, TokenId id) {
  TokenOut out{.id = id};
  if (logprobs < 0) return out;
  if (!AllFinite(logits)) return NoNumbers();
  FillLogprobs(logits, logprobs, &out);
  return out;
}

StatusOr<BeamOffer> Sampler::Offer(absl::Span<const float> logits, const SamplingParams& params,
                                   const Position& position, absl::Span<const TokenId> ends) {
  if (!AllFinite(logits)) return NoNumbers();
  return OfferOf(logits, Processed(logits, params, position), ends, params.n, params.logprobs);
}

absl::Span<const float> Sampler::Processed(absl::Span<const float> logits,
                                           const SamplingParams& params, const Position& position) {
  if (LeavesLogits(params, position)) return logits;
  processed_.assign(logits.begin(), logits.end());
  ProcessLogits(params, position, absl::MakeSpan(processed_));
  return processed_;
}

std::optional<TokenId> Sampler::Draw(absl::Span<const float> logits, const RowDraw& draw) {
  const std::optional<Best> best = FindBest(logits);
  if (!best) return std::nullopt;
  if (draw.temperature == 0) return best->id;
  const WeightedRow row{logits, best->logit, draw.temperature, draw.min_weight};
  if (draw.top_k == 0 && draw.top_p >= 1) return DrawFromRow(row, draw.noise);
  return DrawFrom(truncation_.Keep(row, draw.top_k, draw.top_p), draw.noise);
}

TokenId Sampler::DrawFromRow(const WeightedRow& row, uint64_t noise) {
  group_weights_.clear();
  for (size_t first = 0; first < row.logits.size(); first += kGroup) {
    group_weights_.push_back(SumWeights(row, first, kGroup));
  }
  uint64_t left =
      Below(noise, std::accumulate(group_weights_.begin(), group_weights_.end(), uint64_t{0}));
  size_t group = 0;
  while (left >= group_weights_[group]) left -= group_weights_[group++];
  for (size_t first = group * kGroup;; first += kLanes) {
    const std::array<uint64_t, kLanes> weights = row.Weights(row.Scaled(first));
    for (int i = 0; i < kLanes; ++i) {
      if (left < weights[i]) return static_cast<TokenId>(first + i);
      left -= weights[i];
    }
  }
}

}  // namespace kvasir::sample
