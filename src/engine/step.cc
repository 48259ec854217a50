// The stages of Core's step.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/core.h"

namespace kvasir::engine {

bool Core::Step() {
  const TimePoint start = clock_.Now();
  ExpireDeadlines(start);
  if (idle()) return false;
  Plan();
  ApplyPlan();
  AssembleBatch();
  const TimePoint run_start = clock_.Now();
  const Status ran = RunBatch();
  const Duration run = clock_.Now() - run_start;
  if (ran.ok()) {
    CommitBatch();
    step_model_.Observe(plan_.shape, ToSeconds(clock_.Now() - start));
  } else {
    FailBatch(ran);
  }
  RemoveDone();
  ShedForks();
  ++counters_.steps;
  PreemptForTest();
  if (options_.observer) {
    options_.observer->OnStep({.run = run,
                               .total = clock_.Now() - start,
                               .prefill_tokens = static_cast<int32_t>(plan_.shape.prefill_tokens),
                               .decodes = static_cast<int32_t>(plan_.shape.decodes),
                               .sequences = static_cast<int32_t>(items_.size())});
  }
  return true;
}

void Core::Plan() {
  running_views_.clear();
  waiting_views_.clear();
  candidates_.clear();
  for (const auto& sequence : running_) {
    schedule::SequenceView& view = running_views_.emplace_back(View(*sequence));
    view.computed = sequence->computed;
    view.blocks = sequence->page_table();
    SetNextHash(*sequence, &view);
  }
  for (auto it = waiting_.begin(); it != waiting_.end() && candidates_.size() < StartCandidates();
       ++it) {
    const Sequence& sequence = *it->second;
    schedule::SequenceView& view = waiting_views_.emplace_back(View(sequence));
    const kv::PrefixIndex::Found found = index_.Probe(sequence.matchable_hashes());
    view.computed = found.blocks * model_.block_size;
    view.idle_matched = found.idle;
    SetNextHash(sequence, &view);
    candidates_.push_back(it->second.get());
  }
  schedule::NextStep({.running = running_views_,
                      .waiting = waiting_views_,
                      .block_size = model_.block_size,
                      .pool = &pool_,
                      .model = &step_model_},
                     budget_, &plan_);
}

schedule::SequenceView Core::View(const Sequence& sequence) const {
  const size_t open = sequence.group().open_choices.size();
  return {.rank = sequence.rank(),
          .length = sequence.length(),
          .slots = sequence.forked() ? 1 : static_cast<int32_t>(open)};
}

void Core::SetNextHash(const Sequence& sequence, schedule::SequenceView* view) const {
  const size_t next = view->computed / model_.block_size;
  if (next < sequence.block_hashes().size()) view->next_hash = sequence.block_hashes()[next];
  view->reuses_next = next < sequence.matchable_hashes().size();
}

// How many waiting sequences the planner is shown: more than can start, because some of them may
// have to wait for another one's prefix.
size_t Core::StartCandidates() const {
  const int32_t free = options_.max_num_seqs - static_cast<int32_t>(running_.size());
  return free <= 0 ? 0 : 2 * static_cast<size_t>(free) + 16;
}

void Core::ApplyPlan() {
  std::vector<Sequence*> preempted;
  for (int32_t i : plan_.preempt) preempted.push_back(running_[i].get());
  items_.clear();
  for (const schedule::StepPlan::Compute& compute : plan_.compute) {
    Sequence* sequence =
        compute.waiting ? candidates_[compute.index] : running_[compute.index].get();
    items_.push_back({sequence, compute.tokens, compute.waiting});
  }
  KVASIR_CHECK(!items_.empty(), "a step advances at least one sequence");
  for (Sequence* sequence : preempted) {
    ++counters_.preemptions;
    Preempt(sequence);
  }
  // Every cached prefix is pinned before an allocation may evict something.
  const TimePoint now = clock_.Now();
  for (const Item& item : items_) {
    if (item.starts) Start(item.sequence, now);
  }
}

void Core::Start(Sequence* sequence, TimePoint now) {
  auto node = waiting_.extract(sequence->rank());
  MakeRunning(std::move(node.mapped()));
  for (kv::BlockRef& block : index_.Match(sequence->matchable_hashes())) {
    sequence->AddBlock(std::move(block));
    ++sequence->published;
  }
  sequence->computed = sequence->published * model_.block_size;
  sequence->outputs_at_start = sequence->outputs();
  Group& group = sequence->group();
  if (std::exchange(group.started, true)) return;
  const int64_t prompt = static_cast<int64_t>(group.request->prompt_ids.size());
  group.cached_tokens = sequence->computed;
  counters_.prompt_tokens += prompt;
  counters_.cached_prompt_tokens += sequence->computed;
  --queued_;
  queued_prompt_tokens_ -= prompt;
  if (options_.observer) options_.observer->OnStart(now - group.accepted);
}

kv::BlockRef Core::AllocateBlock() {
  if (pool_.free() == 0) index_.Evict(1);
  kv::BlockRef block = pool_.Allocate();
  KVASIR_CHECK(static_cast<bool>(block), "the plan counted on a block");
  return block;
}

// Makes room for `tokens` more: what will be written is held by this sequence alone.
void Core::PrepareBlocks(Sequence& sequence, int32_t tokens) {
  const int32_t tail = sequence.computed / model_.block_size;
  if (sequence.computed % model_.block_size != 0 && !sequence.blocks()[tail].unique()) {
    kv::BlockRef copy = AllocateBlock();
    batch_.copies.push_back({sequence.blocks()[tail].id(), copy.id()});
    sequence.ReplaceBlock(tail, std::move(copy));
    ++counters_.copy_on_writes;
  }
  while (static_cast<int32_t>(sequence.blocks().size()) * model_.block_size <
         sequence.computed + tokens) {
    sequence.AddBlock(AllocateBlock());
  }
}

void Core::AssembleBatch() {
  batch_.copies.clear();
  batch_.sequences.clear();
  for (const Item& item : items_) {
    Sequence& sequence = *item.sequence;
    PrepareBlocks(sequence, item.tokens);
    batch_.sequences.push_back(
        {.tokens = sequence.tokens().subspan(sequence.computed, item.tokens),
         .start = sequence.computed,
         .blocks = sequence.page_table(),
         .wants_logits = sequence.computed + item.tokens == sequence.length()});
  }
}

Status Core::RunBatch() {
  const auto wants = [](const BatchSequence& sequence) { return sequence.wants_logits; };
  const size_t rows = std::count_if(batch_.sequences.begin(), batch_.sequences.end(), wants);
  const size_t size = rows * model_.vocab_size;
  if (logits_.size() < size) logits_.resize(size);
  return runner_.Run(batch_, absl::MakeSpan(logits_).first(size));
}

void Core::CommitBatch() {
  draws_.clear();
  size_t row = 0;
  for (size_t i = 0; i < items_.size(); ++i) {
    CountItem(items_[i]);
    Sequence& sequence = *items_[i].sequence;
    sequence.computed += items_[i].tokens;
    Publish(sequence);
    if (!batch_.sequences[i].wants_logits) continue;
    const absl::Span<const float> logits = absl::MakeConstSpan(logits_);
    draws_.push_back({&sequence, logits.subspan(row++ * model_.vocab_size, model_.vocab_size)});
  }
  ForkChoices();
  SampleDraws();
  for (Draw& draw : draws_) CommitDraw(draw);
}

void Core::CountItem(const Item& item) {
  const Sequence& sequence = *item.sequence;
  const bool to_end = sequence.computed + item.tokens == sequence.length();
  const bool decodes = sequence.outputs() > 0 && item.tokens == 1 && to_end;
  if (!decodes) counters_.computed_prompt_tokens += item.tokens;
  if (!to_end) ++counters_.prefill_chunks;
}

// From now on others may find the full blocks, so that even a sequence that is preempted or ends
// leaves its work behind. A block that the index has already is swapped for the index's.
void Core::Publish(Sequence& sequence) {
  if (!options_.enable_prefix_caching) return;
  for (; (sequence.published + 1) * model_.block_size <= sequence.computed; ++sequence.published) {
    const int32_t i = sequence.published;
    sequence.ReplaceBlock(
        i, index_.Insert(sequence.block_hashes()[i], sequence.ParentHash(i), i == 0,
                         sequence.tokens().subspan(i * model_.block_size, model_.block_size),
                         sequence.blocks()[i].Share()));
  }
}

// A prompt that is computed becomes one sequence a choice; all draw from its row of logits.
void Core::ForkChoices() {
  const size_t prompts = draws_.size();
  for (size_t i = 0; i < prompts; ++i) {
    Sequence& first = *draws_[i].sequence;
    if (first.forked()) continue;
    const std::vector<int32_t>& choices = first.group().open_choices;
    std::unique_ptr<Sequence> owned = TakeRunning(&first);
    first.BecomeChoice(choices[0]);
    MakeRunning(std::move(owned));
    for (size_t c = 1; c < choices.size(); ++c) {
      std::unique_ptr<Sequence> fork = first.Fork(choices[c]);
      draws_.push_back({fork.get(), draws_[i].logits});
      MakeRunning(std::move(fork));
      ++counters_.forks;
    }
  }
}

void Core::SampleDraws() {
  if (options_.test.on_logits) {
    for (const Draw& draw : draws_) {
      options_.test.on_logits(draw.sequence->request().id, draw.sequence->choice(),
                              draw.sequence->outputs(), draw.logits);
    }
  }
  runner_.pool().ParallelFor(static_cast<int64_t>(draws_.size()), [this](int64_t i, int thread) {
    Draw& draw = draws_[i];
    const Sequence& sequence = *draw.sequence;
    draw.out = samplers_[thread].Sample(draw.logits, sequence.sampling(),
                                        {.choice = sequence.choice(),
                                         .index = sequence.outputs(),
                                         .counts = sequence.counts(),
                                         .eos_ids = model_.eos_ids});
  });
}

void Core::CommitDraw(Draw& draw) {
  Sequence& sequence = *draw.sequence;
  if (!draw.out.ok()) return Finish(sequence, FinishReason::kError, draw.out.status());
  const TokenId token = draw.out->id;
  sequence.Append(token);
  ++counters_.generated_tokens;
  Group& group = sequence.group();
  TokenEvent event{.choice = sequence.choice(), .cached_tokens = group.cached_tokens};
  event.tokens.push_back(*std::move(draw.out));
  if (sample::IsEnd(sequence.sampling(), model_.eos_ids, token)) {
    event.finish = FinishReason::kStop;
  } else if (sequence.outputs() >= group.max_tokens) {
    event.finish = FinishReason::kLength;
  }
  const bool ends = event.finish.has_value();
  group.sink->OnEvent(std::move(event));
  if (!ends) return;
  Release(sequence);
  sequence.done = true;
  Close(group, sequence.choice());
}

void Core::FailBatch(const Status& error) {
  for (const Item& item : items_) Finish(*item.sequence, FinishReason::kError, error);
}

// A request may have more choices than there are slots: the last in rank wait.
void Core::ShedForks() {
  while (static_cast<int32_t>(running_.size()) > options_.max_num_seqs) {
    Preempt(running_.back().get());
  }
}

// Only sequences that got a token since they started, so that work goes on whatever the interval.
void Core::PreemptForTest() {
  const int64_t every = options_.test.preempt_every_n_steps;
  if (every <= 0 || counters_.steps % every != 0) return;
  const size_t first = static_cast<size_t>(counters_.steps / every);
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[(first + i) % running_.size()].get();
    if (sequence->outputs() == sequence->outputs_at_start) continue;
    ++counters_.preemptions;
    return Preempt(sequence);
  }
}

}  // namespace kvasir::engine
