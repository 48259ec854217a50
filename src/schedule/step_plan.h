// What the next step does, and everything that this decision may depend on.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/hash128.h"
#include "core/batch.h"
#include "kv/block_pool.h"
#include "perf/step_model.h"

namespace kvasir::schedule {

// The order in which sequences are served; the least is first. A priority level is worth a fixed
// head start in time, so a sequence of low priority ages: it goes before any that arrives more
// than that later. FCFS within a priority. The order of two sequences never changes.
struct Rank {
  TimePoint virtual_arrival{};
  int64_t number = 0;  // of acceptance; unique, or shared by the choices of a request
  int32_t choice = 0;

  friend auto operator<=>(const Rank&, const Rank&) = default;
};
Rank MakeRank(int32_t priority, TimePoint arrival, int64_t number, int32_t choice);

// One sequence as the scheduler sees it. All its tokens are known up to `length`; the step that
// computes the last one yields the next, or several where drafts come true.
struct SequenceView {
  Rank rank;
  int32_t length = 0;
  int32_t computed = 0;  // tokens whose KV is there; of a waiting one: that a cached prefix gives
  int32_t slots = 1;     // sequences that it becomes once its prompt is computed
  int32_t tail = 1;      // tokens at the end that are computed together as a decode
  int32_t drafts = 0;    // guesses behind `length` that a decode may compute too
  int32_t max_chunk = std::numeric_limits<int32_t>::max();  // tokens of a prefill chunk
  // It stalls until others of its request have computed, and keeps what came of its own work: it is
  // preempted where nothing else could go on.
  bool yields = false;
  // The block that computing on would complete first, if it is full of known tokens, and whether
  // this sequence could take it from the cache instead: of sequences with the same next block, one
  // computes it and those that could reuse it wait.
  std::optional<Hash128> next_hash;
  bool reuses_next = false;
  // Of a running one: the blocks that it holds, in order.
  absl::Span<const BlockId> blocks;
  // Of a waiting one: blocks of its cached prefix that only the cache holds.
  int32_t idle_matched = 0;

  bool decodes() const { return computed < length && computed + tail >= length; }
  // It waits for something else than computing: a step may leave it out.
  bool stalls() const { return computed == length; }
};

// REQUIRES: both lists are in the order of their ranks.
struct State {
  absl::Span<const SequenceView> running;
  absl::Span<const SequenceView> waiting;  // as many as may start in this step, or more
  int32_t block_size = 0;
  const kv::BlockPool* pool = nullptr;
  const perf::StepModel* model = nullptr;
};

struct Budget {
  int32_t max_num_seqs = 0;
  int32_t max_num_batched_tokens = 0;
  double itl_target = 0.05;           // seconds: a step with decodes
  double prefill_step_target = 0.08;  // seconds: a step without
};

// Indices into State's lists.
struct StepPlan {
  struct Compute {
    bool waiting = false;  // starts now: its cached prefix is pinned, then it computes
    int32_t index = 0;
    int32_t tokens = 0;  // more than the sequence has left: the rest are drafts
  };
  std::vector<int32_t> preempt;  // running ones that give up their blocks and wait again
  std::vector<Compute> compute;  // decodes first
  perf::StepShape shape;

  void Clear() {
    preempt.clear();
    compute.clear();
    shape = {};
  }
};

}  // namespace kvasir::schedule
