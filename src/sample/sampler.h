// Chooses the next token of a sequence. The result is a pure function of the arguments: not of the
// batch, the thread, or what was sampled before.
#pragma once

#include <absl/types/span.h>

#include <optional>
#include <vector>

#include "base/status.h"
#include "core/batch.h"
#include "core/sampling_params.h"
#include "core/token_event.h"
#include "sample/beam_offer.h"
#include "sample/logits_processors.h"
#include "sample/truncation.h"

namespace kvasir::sample {

// The draw of an output token of a choice as numbers.
RowDraw DrawOf(const SamplingParams& params, int32_t choice, int32_t index);

// Holds scratch alone; one thread at a time, so one per thread.
class Sampler {
 public:
  // `logits`, [vocab], are the model's raw ones. Greedy when the temperature is below 1e-5; else
  // the processed logits are scaled, truncated, and one token is drawn by inverting the cumulative
  // weights in the order of ids with Noise(seed, choice, index).
  // Internal when a raw logit is not finite, or the processed ones leave no token to choose.
  StatusOr<TokenOut> Sample(absl::Span<const float> logits, const SamplingParams& params,
                            const Position& position);

  // The token that `draw` chooses, or nothing where FindBest finds none.
  std::optional<TokenId> Draw(absl::Span<const float> logits, const RowDraw& draw);

  // What the row offers to a beam search of width params.n, where `ends` end the output. Nothing,
  // where the processed logits leave no token. Internal when a raw logit is not finite.
  StatusOr<BeamOffer> Offer(absl::Span<const float> logits, const SamplingParams& params,
                            const Position& position, absl::Span<const TokenId> ends);

  // The error of a request whose processors leave no token to choose.
  static Status NoTokenLeft();

  // A token that was drawn where the logits are; Internal for -1, a logit that is not finite.
  static StatusOr<TokenOut> Drawn(TokenId token);

  // A token with what `logprobs`, as in SamplingParams, asks of it. Internal when a logit is needed
  // that is not finite.
  static StatusOr<TokenOut> Report(absl::Span<const float> logits, int32_t logprobs, TokenId id);

 private:
  absl::Span<const float> Processed(absl::Span<const float> logits, const SamplingParams& params,
                                    const Position& position);
  TokenId DrawFromRow(const WeightedRow& row, uint64_t noise);

  std::vector<float> processed_;
  std::vector<uint64_t> group_weights_;
  Truncation truncation_;
};

}  // namespace kvasir::sample
