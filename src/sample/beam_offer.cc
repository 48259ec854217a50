#include "sample/beam_offer.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "sample/logprobs.h"
#include "sample/weights.h"

namespace kvasir::sample {
namespace {

using Tokens = std::vector<std::pair<TokenId, float>>;

// The `width` best of `ends`, which may name a token twice.
Tokens TopEnds(absl::Span<const float> logits, absl::Span<const TokenId> ends, size_t width) {
  Tokens top;
  for (const TokenId id : ends) top.emplace_back(id, logits[id]);
  std::sort(top.begin(), top.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  top.erase(std::unique(top.begin(), top.end()), top.end());
  top.resize(std::min(top.size(), width));
  return top;
}

}  // namespace

BeamOffer OfferOf(absl::Span<const float> raw, absl::Span<const float> processed,
                  absl::Span<const TokenId> ends, int32_t width, int32_t logprobs) {
  BeamOffer offer;
  if (!FindBest(processed)) return offer;
  const LogSoftmax softmax(processed);
  std::optional<LogSoftmax> raw_softmax;
  if (logprobs >= 0) raw_softmax = processed.data() == raw.data() ? softmax : LogSoftmax(raw);
  const auto add = [&](const Tokens& tokens, bool ends_output) {
    for (const auto& [id, logit] : tokens) {
      if (std::isinf(logit)) return;  // masked, as are all behind it
      offer.candidates.push_back(
          {.id = id,
           .logprob = softmax.Of(logit),
           .raw_logprob = raw_softmax ? static_cast<float>(raw_softmax->Of(raw[id])) : 0.0f,
           .ends = ends_output});
    }
  };
  add(TopTokens(processed, static_cast<size_t>(width), ends), false);
  add(TopEnds(processed, ends, static_cast<size_t>(width)), true);
  if (raw_softmax) offer.top_logprobs = TopLogprobs(raw, *raw_softmax, logprobs);
  return offer;
}

BeamOffer OfferOf(const TokenOut& forced, bool ends) {
  return {.candidates = {{.id = forced.id, .raw_logprob = forced.logprob, .ends = ends}},
          .top_logprobs = forced.top_logprobs};
}

}  // namespace kvasir::sample
