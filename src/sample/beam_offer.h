// What a row of logits offers to beam search (see BeamSearch in core/request.h): little enough to
// be kept where the row is not.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "core/token_event.h"

namespace kvasir::sample {

struct BeamOffer {
  struct Candidate {
    TokenId id = 0;
    double logprob = 0;        // under the processed distribution
    float raw_logprob = 0.0f;  // what TokenOut reports; only where log-probabilities are wanted
    bool ends = false;         // it ends the output
  };
  // Of the tokens that end the output and of those that do not, the best ones of each kind: none of
  // the others can be among the `width` best continuations of all beams, nor among the `width` best
  // that go on. Empty where nothing may come. In no particular order.
  std::vector<Candidate> candidates;
  // What TokenOut reports, whichever candidate is chosen.
  std::vector<std::pair<TokenId, float>> top_logprobs;

  TokenOut Report(const Candidate& candidate) const {
    return {.id = candidate.id, .logprob = candidate.raw_logprob, .top_logprobs = top_logprobs};
  }
};

// `raw` and `processed` are the row before and after ProcessLogits; raw is finite. `ends` are the
// tokens that end the output; `logprobs` is as in SamplingParams.
BeamOffer OfferOf(absl::Span<const float> raw, absl::Span<const float> processed,
                  absl::Span<const TokenId> ends, int32_t width, int32_t logprobs);

// A token that is certain.
BeamOffer OfferOf(const TokenOut& forced, bool ends);

}  // namespace kvasir::sample
