// One forward pass, as the engine hands it to a runner.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <absl/types/span.h>

#include "core/sampling_params.h"

namespace kvasir {

using BlockId = int32_t;  // index of a KV block in the device pool

// A draw from a row of raw logits that a runner can make where they are: the very token that
// sample::Sampler draws of the same parameters.
struct RowDraw {
  float temperature = 0;    // 0: the best token, of equal ones the first
  uint64_t min_weight = 1;  // of a token that can be drawn (sample/weights.h)
  int32_t top_k = 0;        // of those, as in SamplingParams
  float top_p = 1;
  uint64_t noise = 0;
};

// One sequence's share: tokens at absolute positions [start, start + tokens.size()).
struct BatchSequence {
  absl::Span<const TokenId> tokens;
  int32_t start = 0;
  // Page table: block i holds positions [i * block_size, (i + 1) * block_size). Covers at least
  // start + tokens.size() positions; every block that this pass writes is held by this sequence
  // alone.
  absl::Span<const BlockId> blocks;
  // What the pass gives back: a row for each of the sequence's last tokens, of raw logits or of the
  // final hidden state. At most one of the two is set.
  int32_t logits = 0;
  int32_t hidden = 0;
  // Of each row of logits only the token that this chooses is wanted; without a temperature there
  // may be several rows, else one. REQUIRES: Runner::draws().
  std::optional<RowDraw> draw;
};

struct BlockCopy {
  BlockId from = 0;
  BlockId to = 0;
};

struct Batch {
  std::vector<BlockCopy> copies;  // copy-on-write, done before the pass
  std::vector<BatchSequence> sequences;
};

// Where a pass writes what it gives back: the rows of the batch's sequences, one after the other.
struct BatchOutput {
  absl::Span<float> logits;  // [sum of BatchSequence::logits of those without a draw, vocab]
  // [sum of BatchSequence::logits of those with a draw]; -1 where a logit is not finite
  absl::Span<TokenId> drawn;
  absl::Span<float> hidden;  // [sum of BatchSequence::hidden, hidden size], after the final norm
};

}  // namespace kvasir
