#include "schedule/next_step.h"

#include <absl/container/flat_hash_map.h>

#include <algorithm>

#include "schedule/capacity.h"

namespace kvasir::schedule {
namespace {

// A priority level's head start; see Rank.
constexpr Duration kPriorityStep = std::chrono::seconds(10);
// Bounds the head start to four months, far inside the range of a time point.
constexpr int32_t kMaxPriority = 1'000'000;

int32_t CeilDiv(int32_t a, int32_t b) { return (a + b - 1) / b; }

class Planner {
 public:
  Planner(const State& state, const Budget& budget, StepPlan* plan)
      : state_(state),
        budget_(budget),
        plan_(*plan),
        capacity_(*state.pool),
        live_(static_cast<int32_t>(state.running.size())),
        done_(state.running.size(), false) {
    for (const SequenceView& view : state.running) slots_ += Slots(view);
  }

  void Run() {
    PlanDecodes();
    mixed_limit_ = std::min(budget_.itl_target, kMaxDecodeStretch / state_.model->overrun() *
                                                    state_.model->Predict(plan_.shape));
    FindOwners();
    do {
      PlanPrefills();
    } while (plan_.compute.empty() && !AnyStalls() && !PreemptYielding() && PreemptLast());
  }

 private:
  int32_t Slots(const SequenceView& view) const {
    return std::min(view.slots, budget_.max_num_seqs);
  }

  int32_t Planned() const {
    return static_cast<int32_t>(plan_.shape.decodes + plan_.shape.prefill_tokens);
  }

  int32_t TokensLeft() const { return budget_.max_num_batched_tokens - Planned(); }

  bool AnyStalls() const {
    return std::any_of(state_.running.begin(), state_.running.begin() + live_,
                       [](const SequenceView& view) { return view.stalls() && !view.yields; });
  }

  // True when the first write of `view` goes to a block that others hold too.
  bool CopiesTail(const SequenceView& view) const {
    const size_t tail = view.computed / state_.block_size;
    return view.computed % state_.block_size != 0 && tail < view.blocks.size() &&
           capacity_.Holders(view.blocks[tail]) > 1;
  }

  int32_t HeldBlocks(const SequenceView& view) const {
    return CeilDiv(view.computed, state_.block_size);
  }

  int32_t BlocksNeeded(const SequenceView& view, int32_t tokens) const {
    return CeilDiv(view.computed + tokens, state_.block_size) - HeldBlocks(view) +
           (CopiesTail(view) ? 1 : 0);
  }

  // Running sequences from `live_` on are preempted: the last in rank go first.
  bool PreemptLast() {
    if (live_ <= 1) return false;
    --live_;
    for (BlockId id : state_.running[live_].blocks) capacity_.Release(id);
    slots_ -= Slots(state_.running[live_]);
    plan_.preempt.push_back(live_);
    return true;
  }

  // One is enough: what waits may start with the next step, and its blocks may do.
  bool PreemptYielding() {
    for (int32_t i = live_ - 1; i >= 0; --i) {
      if (!state_.running[i].yields) continue;
      plan_.preempt.push_back(i);
      return true;
    }
    return false;
  }

  // Leaves room for one chunk when a prompt is under way, however many sequences decode.
  int32_t DecodeTokens() const {
    const bool prefills =
        !state_.waiting.empty() ||
        std::any_of(state_.running.begin(), state_.running.end(),
                    [](const SequenceView& view) { return !view.decodes() && !view.stalls(); });
    const int32_t cap = budget_.max_num_batched_tokens;
    return prefills ? std::max(1, cap - std::min(kChunkTokens, cap / 2)) : cap;
  }

  void PlanDecodes() {
    const int32_t limit = DecodeTokens();
    for (int32_t i = 0; i < live_; ++i) {
      const SequenceView& view = state_.running[i];
      if (!view.decodes()) continue;
      if (Planned() >= limit) return;
      const int32_t tokens = std::min(view.length - view.computed, limit - Planned());
      // CopiesTail changes when another holder of the tail is preempted, so the need is asked anew.
      while (capacity_.available() < BlocksNeeded(view, tokens) && live_ > i + 1) PreemptLast();
      if (capacity_.available() < BlocksNeeded(view, tokens)) {
        PreemptLast();
        return;
      }
      Commit({.waiting = false, .index = i, .tokens = tokens}, view);
      plan_.shape.AddDecode(view.computed + 1);
      if (tokens > 1) plan_.shape.AddPrefill(view.computed + 1, tokens - 1);
    }
    PlanDrafts(limit);
  }

  // Each planned decode takes as many of its drafts as tokens and free blocks are left.
  void PlanDrafts(int32_t limit) {
    for (StepPlan::Compute& compute : plan_.compute) {
      const SequenceView& view = state_.running[compute.index];
      if (view.drafts == 0 || view.computed + compute.tokens < view.length) continue;
      const int32_t end = view.computed + compute.tokens;
      const int32_t room = CeilDiv(end, state_.block_size) * state_.block_size - end +
                           capacity_.available() * state_.block_size;
      const int32_t drafts = std::min({view.drafts, limit - Planned(), room});
      if (drafts <= 0) continue;
      capacity_.Take(CeilDiv(end + drafts, state_.block_size) - CeilDiv(end, state_.block_size));
      compute.tokens += drafts;
      plan_.shape.AddPrefill(end, drafts);
    }
  }

  void Commit(StepPlan::Compute compute, const SequenceView& view) {
    capacity_.Take(BlocksNeeded(view, compute.tokens));
    if (CopiesTail(view)) capacity_.Release(view.blocks[view.computed / state_.block_size]);
    if (!compute.waiting) done_[compute.index] = true;
    plan_.compute.push_back(compute);
  }

  // Who computes which block next, among the running.
  void FindOwners() {
    for (int32_t i = 0; i < live_; ++i) {
      const SequenceView& view = state_.running[i];
      if (!view.decodes() && view.next_hash) owners_.try_emplace(*view.next_hash, i);
    }
  }

  void PlanPrefills() {
    int32_t r = 0;
    size_t w = 0;
    bool admit = plan_.preempt.empty();
    while (r < live_ || (admit && w < state_.waiting.size())) {
      const bool running_first = !admit || w == state_.waiting.size() ||
                                 (r < live_ && state_.running[r].rank < state_.waiting[w].rank);
      if (running_first) {
        Advance(r++);
      } else {
        admit = Start(static_cast<int32_t>(w++));
      }
    }
  }

  // A chunk of running sequence `i`, if it prefills and has none yet.
  void Advance(int32_t i) {
    const SequenceView& view = state_.running[i];
    if (done_[i] || view.decodes()) return;
    const int32_t tokens = ChunkTokens(view);
    if (tokens == 0) return;
    Commit({.waiting = false, .index = i, .tokens = tokens}, view);
    plan_.shape.AddPrefill(view.computed, tokens);
    advances_prompt_ = true;
  }

  // Starts a waiting sequence if it may start; false when those after it must not either.
  bool Start(int32_t i) {
    const SequenceView& view = state_.waiting[i];
    if (view.next_hash) {
      const auto [owner, is_new] = owners_.try_emplace(*view.next_hash, kStarting);
      if (!is_new && view.reuses_next) {
        if (owner->second != kStarting) Advance(owner->second);
        return true;
      }
    }
    if (slots_ + Slots(view) > budget_.max_num_seqs || !FitsWhole(view)) return false;
    capacity_.Take(view.idle_matched);
    const int32_t tokens = ChunkTokens(view);
    if (tokens == 0) {
      capacity_.Take(-view.idle_matched);
      return false;
    }
    Commit({.waiting = true, .index = i, .tokens = tokens}, view);
    plan_.shape.AddPrefill(view.computed, tokens);
    advances_prompt_ = true;
    slots_ += Slots(view);
    starting_blocks_ +=
        BlocksNeeded(view, view.length - view.computed) - BlocksNeeded(view, tokens);
    return true;
  }

  // Whether all of a waiting sequence fits beside what the running ones have still to compute, with
  // a block to grow for each. Without it, two long prompts would take turns preempting each other.
  bool FitsWhole(const SequenceView& view) const {
    if (live_ == 0 && plan_.compute.empty()) return true;
    int32_t promised = starting_blocks_ + live_;
    for (int32_t i = 0; i < live_; ++i) {
      const SequenceView& running = state_.running[i];
      if (running.stalls() || (done_[i] && running.decodes())) continue;
      promised += BlocksNeeded(running, running.length - running.computed);
    }
    const int32_t needed = BlocksNeeded(view, view.length + 1 - view.computed) + view.idle_matched;
    return capacity_.available() - promised >= needed;
  }

  // The largest chunk that time, tokens and blocks allow; 0 when there is none.
  int32_t ChunkTokens(const SequenceView& view) const {
    const int32_t room = (HeldBlocks(view) + capacity_.available() - (CopiesTail(view) ? 1 : 0)) *
                             state_.block_size -
                         view.computed;
    const int32_t most =
        std::min({view.length - view.computed, TokensLeft(), room, view.max_chunk});
    if (most <= 0) return 0;
    const int32_t least = advances_prompt_ ? 0 : std::min(kChunkTokens, most);
    int32_t low = 0, high = most;
    while (low < high) {
      const int32_t middle = low + (high - low + 1) / 2;
      WithinTime(view, middle) ? low = middle : high = middle - 1;
    }
    if (low < most) low = AlignedChunk(view.computed, low);
    return std::max(low, least);
  }

  static int32_t AlignedChunk(int32_t start, int32_t tokens) {
    return std::max(0, (start + tokens) / kChunkTokens * kChunkTokens - start);
  }

  bool WithinTime(const SequenceView& view, int32_t tokens) const {
    perf::StepShape shape = plan_.shape;
    shape.AddPrefill(view.computed, tokens);
    const double limit = plan_.shape.decodes == 0 ? budget_.prefill_step_target : mixed_limit_;
    return state_.model->Predict(shape) <= limit;
  }

  static constexpr int32_t kStarting = -1;  // an owner that starts in this step

  const State& state_;
  const Budget& budget_;
  StepPlan& plan_;
  Capacity capacity_;
  int32_t live_;                 // running sequences that are not preempted
  std::vector<bool> done_;       // running sequences that compute in this step
  int32_t slots_ = 0;            // taken by running and starting sequences
  int32_t starting_blocks_ = 0;  // that starting sequences will need after this step
  double mixed_limit_ = 0;
  bool advances_prompt_ = false;  // some prompt gets a chunk in this step
  absl::flat_hash_map<Hash128, int32_t> owners_;
};

}  // namespace

Rank MakeRank(int32_t priority, TimePoint arrival, int64_t number, int32_t choice) {
  const int32_t level = std::clamp(priority, -kMaxPriority, kMaxPriority);
  return {arrival + level * kPriorityStep, number, choice};
}

void NextStep(const State& state, const Budget& budget, StepPlan* plan) {
  plan->Clear();
  Planner(state, budget, plan).Run();
}

}  // namespace kvasir::schedule
