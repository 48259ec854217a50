// Drafts by a smaller model of the same vocabulary. They are drawn as the request draws its tokens,
// with the same noise for each position, so that two models that agree also agree when sampling.
// Drafts change no answer: the target's own draw decides (engine/core.h).
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "core/batch.h"
#include "kv/block_pool.h"
#include "perf/step_model.h"
#include "runtime/runner.h"
#include "sample/sampler.h"

namespace kvasir::engine {

class Sequence;

// The smaller model's KV of one sequence. Released with it, or when the sequence is preempted.
struct DraftKv {
  std::vector<TokenId> tokens;  // that it was computed from, drafts among them
  int64_t paid = 0;             // tokens whose reading the reading account has paid
  std::vector<kv::BlockRef> blocks;
  std::vector<BlockId> page_table;
};

// One thread at a time. Outlives the DraftKv of every sequence.
class DraftModel {
 public:
  // What a sequence would like to try, and what was done for it.
  struct Wish {
    Sequence* sequence = nullptr;
    int32_t most = 0;    // drafts, at least 1
    double seconds = 0;  // out: its share of the time, but for the reading of what is far behind
  };

  // `runner` and `clock` outlive the model. `eos_ids` end a draft. What the smaller model itself
  // gives less than `least_chance` is not tried, nor is what would follow it.
  DraftModel(runtime::Runner& runner, std::vector<TokenId> eos_ids, const Clock& clock,
             double least_chance);

  // Sets the drafts of each sequence, perhaps none: where the smaller model is not sure, where it
  // has not read the sequence yet (it reads some tokens more each time), or has no blocks left. An
  // error drafts nothing.
  Status Propose(absl::Span<Wish> wishes);

  // Tokens of the sequence that nobody has paid for and that must be read before the first draft; 0
  // where it is not far behind.
  int64_t Unpaid(const Sequence& sequence) const;
  void MarkPaid(Sequence& sequence) const;
  double SecondsToRead(int64_t tokens) const;  // predicted

  // Predicted seconds that drafting one token takes for each of `sequences` of that length.
  double SecondsPerRound(int64_t sequences, int64_t length) const;

  int32_t held_blocks() const { return pool_.size() - pool_.free(); }

 private:
  struct Draft {
    Sequence* sequence = nullptr;
    Wish* wish = nullptr;
    int32_t most = 0;
    std::vector<TokenId> pending;  // to be computed next
    bool open = true;              // another token is wanted
  };

  bool Prepare(Wish& wish, Draft* draft, int32_t* reading);
  bool Reserve(DraftKv& kv, int64_t tokens);
  Status RunRound(std::vector<Draft>& drafts);
  void Take(Draft& draft, absl::Span<const float> row);

  runtime::Runner& runner_;
  const std::vector<TokenId> eos_ids_;
  const Clock& clock_;
  const double least_chance_;
  kv::BlockPool pool_;
  perf::StepModel step_model_;
  sample::Sampler sampler_;
  Batch batch_;
  std::vector<float> logits_;
};

}  // namespace kvasir::engine
