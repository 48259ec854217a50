// The choices of beam search, without the model: which continuations live on, which outputs have
// ended, and when the rest can change nothing. What it means is told at BeamSearch in
// core/request.h; the rules are those of Hugging Face Transformers.
//
// At each position every continuation of every live beam stands in one order: the higher sum of
// log-probabilities first, then the continuation of the better beam, then the lower token id. Of
// the first `width`, those that end the output become hypotheses; of all, the first `width` that do
// not end it are the next live beams. At the last position the first `width` all end. The `width`
// hypotheses of the best scores are kept, an earlier one before a later one of the same score.
//
// The result is a function of the offers alone, as they come position by position: it does not
// matter when, or in which company, the rows behind them were computed.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <vector>

#include "core/request.h"
#include "core/token_event.h"
#include "sample/beam_offer.h"

namespace kvasir::engine {

// An output that has ended.
struct Hypothesis {
  std::vector<TokenOut> tokens;
  FinishReason finish = FinishReason::kLength;
  double score = 0;
};

// One thread at a time.
class Beams {
 public:
  // REQUIRES: width >= 1, a finite length penalty.
  Beams(const BeamSearch& rules, int32_t width, int32_t max_tokens);

  // A live beam as the one before it, gone on with a token.
  struct Step {
    int32_t parent = 0;  // index among the live beams before
    TokenId token = 0;
  };

  // Goes one position on. `offers` are what the rows of the live beams offer, in the order of the
  // live beams; at first there is one, which is empty. Gives the next live beams, the best first;
  // none when the search is over.
  // REQUIRES: one offer for each live beam, and the search is not over.
  std::vector<Step> Advance(absl::Span<const sample::BeamOffer> offers);

  // The kept hypotheses, best first: `width`, or fewer where there are no more outputs.
  std::vector<Hypothesis> Answer() const;

 private:
  using Candidate = sample::BeamOffer::Candidate;

  // The tokens of all beams, as a tree: each node knows the one before it. At most 2 * width nodes
  // a position; those of beams that were left behind stay.
  struct Node {
    int32_t previous = -1;
    TokenOut out;
  };
  struct Live {
    int32_t node = -1;
    double sum = 0;
  };
  struct Ended {
    int32_t node = -1;
    FinishReason finish = FinishReason::kLength;
    double score = 0;
  };
  struct Continuation {
    int32_t parent = 0;
    const Candidate* candidate = nullptr;
    double sum = 0;
  };

  std::vector<Continuation> Order(absl::Span<const sample::BeamOffer> offers) const;
  int32_t AddNode(const Continuation& continuation, absl::Span<const sample::BeamOffer> offers);
  double Score(double sum) const;  // at this length
  void Keep(const Ended& ended);
  bool Settled() const;

  const BeamSearch rules_;
  const size_t width_;
  const int32_t max_tokens_;
  int32_t length_ = 0;  // of the live beams
  std::vector<Node> nodes_;
  std::vector<Live> live_ = {Live()};  // best first
  std::vector<Ended> ended_;           // best first
};

}  // namespace kvasir::engine
