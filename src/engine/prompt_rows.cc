// What is asked about the prompt itself: its tokens' log-probabilities, or an embedding of it.
//
// Rows are taken in the order of their positions, each once: a sequence that is preempted computes
// its prompt again from the start but goes on where its rows ended. So sums have one order.
#include <algorithm>

#include "engine/core.h"

namespace kvasir::engine {

void Core::AskForRows(const Item& item, BatchSequence* share) const {
  const Sequence& sequence = *item.sequence;
  const int32_t prompt = static_cast<int32_t>(sequence.request().prompt_ids.size());
  if (sequence.scored >= prompt) return;
  const int32_t end = sequence.computed + item.tokens;
  const int32_t rows = end - std::clamp(sequence.scored, sequence.computed, end);
  switch (sequence.request().pooling) {
    case Pooling::kNone:
      share->logits = rows;
      return;
    case Pooling::kMean:
      share->logits = 0;
      share->hidden = rows;
      return;
    case Pooling::kLast:
      share->logits = 0;
      share->hidden = end == prompt ? 1 : 0;
      return;
  }
}

void Core::TakePromptRows(const Item& item, absl::Span<const float> logits,
                          absl::Span<const float> hidden) {
  Sequence& sequence = *item.sequence;
  const int32_t prompt = static_cast<int32_t>(sequence.request().prompt_ids.size());
  if (sequence.scored >= prompt) return;
  const int32_t end = std::min(sequence.computed, prompt);
  const size_t size = runner_.hidden_size();
  if (!hidden.empty()) sequence.pooled.resize(size);
  for (size_t row = 0; row < hidden.size() / size; ++row) {
    for (size_t i = 0; i < size; ++i) sequence.pooled[i] += hidden[row * size + i];
  }
  const bool pools = sequence.request().pooling != Pooling::kNone;
  if (!pools) ScorePrompt(sequence, end, logits);
  sequence.scored = std::max(sequence.scored, end);
  if (pools && sequence.scored == prompt) EmitEmbedding(sequence);
}

void Core::EmitEmbedding(Sequence& sequence) {
  if (sequence.request().pooling == Pooling::kMean) {
    for (float& value : sequence.pooled) value /= static_cast<float>(sequence.scored);
  }
  const Group& group = sequence.group();
  group.sink->OnEvent({.choice = group.open_choices.front(),
                       .embedding = std::move(sequence.pooled),
                       .cached_tokens = group.cached_tokens});
}

// `logits` are the rows of positions [scored, end), and perhaps of outputs behind them. The row of
// a position tells of the token after it.
void Core::ScorePrompt(Sequence& sequence, int32_t end, absl::Span<const float> logits) {
  const std::vector<TokenId>& ids = sequence.request().prompt_ids;
  const int32_t first = sequence.scored;
  const int32_t last = std::min(end, static_cast<int32_t>(ids.size()) - 1);
  if (last <= first) return;
  std::vector<StatusOr<TokenOut>> reports(last - first, TokenOut());
  runner_.pool().ParallelFor(last - first, [&](int64_t i, int) {
    reports[i] = sample::Sampler::Report(RowOf(logits, i), sequence.request().prompt_logprobs,
                                         ids[first + i + 1]);
  });
  std::vector<TokenOut> scores;
  for (StatusOr<TokenOut>& report : reports) {
    if (!report.ok()) return Finish(sequence, FinishReason::kError, report.status());
    scores.push_back(*std::move(report));
  }
  const Group& group = sequence.group();
  group.sink->OnEvent({.choice = group.open_choices.front(),
                       .prompt = std::move(scores),
                       .cached_tokens = group.cached_tokens});
}

}  // namespace kvasir::engine
