// The stages of Core's step.
#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "engine/core.h"

namespace kvasir::engine {
namespace {

// How long a step without any other work waits for a guide, so that a cancel is prompt.
constexpr Duration kGuideWait = std::chrono::milliseconds(5);
// Rows of logits that a prompt's log-probabilities take up at a time.
constexpr int32_t kScoredRows = 128;
constexpr int32_t kNoLimit = std::numeric_limits<int32_t>::max();

}  // namespace

bool Core::Step() {
  const TimePoint start = clock_.Now();
  ExpireDeadlines(start);
  if (idle()) return false;
  ResumeStalled();
  if (idle()) return true;
  ProposeDrafts();
  const TimePoint drafted = clock_.Now();
  Plan();
  ApplyPlan();
  if (items_.empty()) {
    if (plan_.preempt.empty()) guide_pool_.AwaitAny(kGuideWait);
    return true;
  }
  AssembleBatch();
  const Status ran = RunBatch();
  if (ran.ok()) {
    CommitBatch();
    const TimePoint end = clock_.Now();
    step_model_.Observe(plan_.shape, ToSeconds(end - drafted));
    counters_.step_seconds.Observe(ToSeconds(end - start));
    counters_.step_tokens.Observe(
        static_cast<double>(plan_.shape.decodes + plan_.shape.prefill_tokens));
  } else if (runner_.failure().ok()) {
    FailBatch(ran);
  } else {
    FailAll(ran);
  }
  RemoveDone();
  ShedForks();
  ++counters_.steps;
  PreemptForTest();
  return true;
}

void Core::ProposeDrafts() {
  if (options_.max_drafts == 0) return;
  perf::StepShape decodes;
  std::vector<Sequence*> sequences;
  for (const auto& sequence : running_) {
    if (!sequence->Decodes()) continue;
    decodes.AddDecode(sequence->length());
    // Guides that are on their way know of the drafts that they were asked for alone.
    if (!sequence->drafts.empty() || sequence->guides || sequence->group().beams) continue;
    if (MostDrafts(*sequence) > 0) sequences.push_back(sequence.get());
  }
  draft_model_ ? DraftByModel(sequences, decodes) : LookUpDrafts(sequences, decodes);
}

int32_t Core::MostDrafts(const Sequence& sequence) const {
  return std::min(options_.max_drafts, sequence.group().max_tokens - sequence.outputs() - 1);
}

void Core::LookUpDrafts(absl::Span<Sequence* const> sequences, const perf::StepShape& decodes) {
  for (Sequence* sequence : sequences) {
    sequence->drafts = sequence->lookup.Propose(sequence->tokens(), MostDrafts(*sequence));
    const int32_t found = static_cast<int32_t>(sequence->drafts.size());
    if (found > 0) sequence->drafts.resize(DraftsWorthTrying(*sequence, found, decodes, 0));
  }
}

void Core::DraftByModel(absl::Span<Sequence* const> sequences, const perf::StepShape& decodes) {
  // A round of drafting is shared by all.
  const auto round = [&](const Sequence& sequence) {
    return draft_model_->SecondsPerRound(decodes.decodes, sequence.length()) /
           static_cast<double>(decodes.decodes);
  };
  if (!sequences.empty()) reading_account_.Pass(step_model_.Predict(decodes));
  std::vector<DraftModel::Wish> wishes;
  for (Sequence* sequence : sequences) {
    const int32_t worth =
        DraftsWorthTrying(*sequence, MostDrafts(*sequence), decodes, round(*sequence));
    if (worth > 0 && PayForReading(*sequence)) wishes.push_back({sequence, worth});
  }
  const Status drafted = draft_model_->Propose(absl::MakeSpan(wishes));
  for (const DraftModel::Wish& wish : wishes) {
    wish.sequence->draft_record.Spend(wish.seconds);
    reading_account_.Spend(wish.seconds);
  }
  if (drafted.ok()) return;
  spdlog::error("draft model: {}", std::string(drafted.message()));
  for (const DraftModel::Wish& wish : wishes) wish.sequence->drafts.clear();
}

bool Core::PayForReading(Sequence& sequence) {
  const int64_t unpaid = draft_model_->Unpaid(sequence);
  if (unpaid == 0 || options_.test.always_draft) return true;
  const double price = draft_model_->SecondsToRead(unpaid);
  if (!reading_account_.Affords(price)) return false;
  reading_account_.Spend(price);
  draft_model_->MarkPaid(sequence);
  return true;
}

// `drafting` are the seconds that making a draft takes.
int32_t Core::DraftsWorthTrying(Sequence& sequence, int32_t most, const perf::StepShape& shape,
                                double drafting) const {
  if (options_.test.always_draft) return most;
  perf::StepShape more = shape;
  more.AddPrefill(sequence.length(), most);
  const double step = step_model_.Predict(shape);
  const double checking = (step_model_.Predict(more) - step) / most;
  const DraftCost cost{
      .step = step, .draft = drafting + checking, .tokens = static_cast<int32_t>(shape.decodes)};
  DraftRecord& record = sequence.draft_record;
  sequence.draft_check = {.step = step, .draft = checking, .tokens = cost.tokens};
  record.Pass(step);
  const int32_t best = record.owes() ? 0 : BestDrafts(record.chance(), most, cost);
  if (best > 0) return best;
  if (record.ShouldProbe()) return 1;
  record.Skip();
  return 0;
}

void Core::Plan() {
  running_views_.clear();
  waiting_views_.clear();
  candidates_.clear();
  for (const auto& sequence : running_) {
    schedule::SequenceView& view = running_views_.emplace_back(View(*sequence));
    view.computed = sequence->computed;
    view.tail = sequence->tail;
    view.drafts = static_cast<int32_t>(sequence->drafts.size());
    view.blocks = sequence->page_table();
    SetNextHash(*sequence, &view);
  }
  for (auto it = waiting_.begin(); it != waiting_.end() && candidates_.size() < StartCandidates();
       ++it) {
    const Sequence& sequence = *it->second;
    if (sequence.offer) continue;  // it has nothing to compute yet
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
  return {.rank = sequence.rank(),
          .length = sequence.length(),
          .slots = SlotsOf(sequence),
          .max_chunk = sequence.request().prompt_logprobs >= 0 ? kScoredRows : kNoLimit,
          .yields = sequence.offer.has_value()};
}

// Cancelled choices are not computed; beams are, because they decide about the others.
int32_t Core::SlotsOf(const Sequence& sequence) const {
  if (sequence.forked()) return 1;
  const Group& group = sequence.group();
  return group.beams ? sequence.sampling().n : static_cast<int32_t>(group.open_choices.size());
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
  const auto stalls = [](const auto& sequence) { return !sequence->held_logits.empty(); };
  KVASIR_CHECK(!items_.empty() || !preempted.empty() ||
                   std::any_of(running_.begin(), running_.end(), stalls),
               "a step advances at least one sequence");
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
  counters_.queue_seconds.Observe(ToSeconds(now - group.accepted));
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
  inputs_.clear();
  for (const Item& item : items_) {
    Sequence& sequence = *item.sequence;
    PrepareBlocks(sequence, item.tokens);
    const int32_t drafts = sequence.computed + item.tokens - sequence.length();
    if (drafts >= 0 && sequence.cursor()) AskForGuides(sequence, drafts);
    batch_.sequences.push_back({.tokens = InputOf(item),
                                .start = sequence.computed,
                                .blocks = sequence.page_table(),
                                .logits = std::max(0, drafts + 1)});
    BatchSequence& share = batch_.sequences.back();
    if (sequence.request().NeedsPromptRows()) AskForRows(item, &share);
    share.draw = RunnersDraw(sequence, share.logits);
  }
}

absl::Span<const TokenId> Core::InputOf(const Item& item) {
  const Sequence& sequence = *item.sequence;
  const absl::Span<const TokenId> known = sequence.tokens().subspan(sequence.computed, item.tokens);
  const size_t drafts = item.tokens - known.size();
  if (drafts == 0) return known;
  std::vector<TokenId>& input = inputs_.emplace_back(known.begin(), known.end());
  input.insert(input.end(), sequence.drafts.begin(), sequence.drafts.begin() + drafts);
  return input;
}

Status Core::RunBatch() {
  size_t logits = 0, hidden = 0, drawn = 0;
  for (const BatchSequence& sequence : batch_.sequences) {
    const size_t rows = sequence.logits;
    (sequence.draw ? drawn : logits) += sequence.draw ? rows : rows * model_.vocab_size;
    hidden += static_cast<size_t>(sequence.hidden) * runner_.hidden_size();
  }
  if (logits_.size() < logits) logits_.resize(logits);
  if (hidden_.size() < hidden) hidden_.resize(hidden);
  drawn_.resize(drawn);
  return runner_.Run(batch_, {.logits = absl::MakeSpan(logits_).first(logits),
                              .drawn = absl::MakeSpan(drawn_),
                              .hidden = absl::MakeSpan(hidden_).first(hidden)});
}

void Core::CommitBatch() {
  draws_.clear();
  guide_deadline_.reset();
  absl::Span<const float> logits = absl::MakeConstSpan(logits_);
  absl::Span<const float> hidden = absl::MakeConstSpan(hidden_);
  absl::Span<const TokenId> drawn = absl::MakeConstSpan(drawn_);
  const auto take = [](auto& rows, size_t size) {
    const auto taken = rows.first(size);
    rows.remove_prefix(size);
    return taken;
  };
  for (size_t i = 0; i < items_.size(); ++i) {
    const Item& item = items_[i];
    const BatchSequence& share = batch_.sequences[i];
    const size_t own_rows = share.logits;
    const auto own_logits = take(logits, share.draw ? 0 : own_rows * model_.vocab_size);
    const auto own_drawn = take(drawn, share.draw ? own_rows : 0);
    const auto own_hidden = take(hidden, static_cast<size_t>(share.hidden) * runner_.hidden_size());
    CountItem(item);
    Sequence& sequence = *item.sequence;
    sequence.computed = std::min(sequence.computed + item.tokens, sequence.length());
    Publish(sequence);
    if (sequence.request().NeedsPromptRows()) TakePromptRows(item, own_logits, own_hidden);
    if (sequence.done || share.start + item.tokens < sequence.length()) continue;
    if (sequence.group().max_tokens == 0) {
      Finish(sequence, FinishReason::kLength);
    } else {
      const size_t rows = share.start + item.tokens - sequence.length() + 1;
      AddDraw(sequence, own_logits.last(share.draw ? 0 : rows * model_.vocab_size),
              own_drawn.last(share.draw ? rows : 0));
    }
  }
  RunDraws();
}

void Core::CountItem(const Item& item) {
  const Sequence& sequence = *item.sequence;
  const bool to_end = sequence.computed + item.tokens >= sequence.length();
  const bool decodes = sequence.outputs() > 0 && sequence.Decodes();
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

void Core::FailBatch(const Status& error) {
  for (const Item& item : items_) {
    if (!item.sequence->done) Finish(*item.sequence, FinishReason::kError, error);
  }
}

void Core::FailAll(const Status& error) {
  for (Sequence* sequence : AllSequences()) {
    if (!sequence->done) Finish(*sequence, FinishReason::kError, error);
  }
}

// A request may have more choices than there are slots: the last in rank wait.
void Core::ShedForks() {
  while (static_cast<int32_t>(running_.size()) > options_.max_num_seqs) {
    Preempt(running_.back().get());
  }
}

// Only sequences that got a token or a row that they keep since they started, so that work goes on
// whatever the interval.
void Core::PreemptForTest() {
  const int64_t every = options_.test.preempt_every_n_steps;
  if (every <= 0 || counters_.steps % every != 0) return;
  const size_t first = static_cast<size_t>(counters_.steps / every);
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[(first + i) % running_.size()].get();
    if (sequence->outputs() == sequence->outputs_at_start && !sequence->offer) continue;
    ++counters_.preemptions;
    return Preempt(sequence);
  }
}

}  // namespace kvasir::engine
