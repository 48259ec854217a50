// What executes a forward pass: the seam between the engine and the compiled model. The simulator
// and the engine's tests put a virtual one in its place.
#pragma once

#include <cstdint>

#include <absl/types/span.h>

#include "base/status.h"
#include "base/thread_pool.h"
#include "core/batch.h"

namespace kvasir::runtime {

// One caller thread at a time (the engine's).
class Runner {
 public:
  virtual ~Runner() = default;

  virtual int32_t vocab_size() const = 0;
  virtual int32_t hidden_size() const = 0;
  virtual int32_t block_size() const = 0;  // tokens a KV block, a multiple of 16
  virtual int32_t num_blocks() const = 0;
  virtual int32_t max_batch_tokens() const = 0;  // cap on the tokens of one batch

  // Why no batch can run any more, from the run on that found it out; OK while one can.
  virtual Status failure() const { return absl::OkStatus(); }

  // Whether batches may ask for tokens instead of rows of logits.
  virtual bool draws() const { return false; }

  // Does the batch's block copies, computes its tokens, writes their K and V into the blocks, and
  // writes the rows that its sequences want. `output` has exactly room for them. An error concerns
  // the whole batch and changes no block that another sequence could read.
  virtual Status Run(const Batch& batch, const BatchOutput& output) = 0;

  // The threads that Run uses; free for the caller's own loops (sampling) between two runs.
  virtual ThreadPool& pool() = 0;
};

}  // namespace kvasir::runtime
