// One forward pass, as the engine hands it to a runner.
#pragma once

#include <cstdint>
#include <vector>

#include <absl/types/span.h>

#include "core/sampling_params.h"

namespace kvasir {

using BlockId = int32_t;  // index of a KV block in the device pool

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
  absl::Span<float> logits;  // [sum of BatchSequence::logits, vocab]
  absl::Span<float> hidden;  // [sum of BatchSequence::hidden, hidden size], after the final norm
};

}  // namespace kvasir
