#include "engine/core.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "engine/admission.h"

namespace kvasir::engine {
namespace {

// Drafts that their own model gives less cost more than they bring.
constexpr double kLeastDraftChance = 0.3;

// Of one choice in the running mean of outputs.
constexpr double kOutputsWeight = 0.05;

schedule::Budget MakeBudget(const EngineOptions& options, const runtime::Runner& runner) {
  return {
      .max_num_seqs = options.max_num_seqs,
      .max_num_batched_tokens = std::min(options.max_num_batched_tokens, runner.max_batch_tokens()),
      .itl_target = ToSeconds(options.itl_target),
      .prefill_step_target = ToSeconds(options.prefill_step_target)};
}

bool RanksBefore(const std::unique_ptr<Sequence>& a, const schedule::Rank& rank) {
  return a->rank() < rank;
}

}  // namespace

Core::Core(runtime::Runner& runner, ModelInfo model, EngineOptions options, const Clock& clock)
    : runner_(runner),
      model_(std::move(model)),
      options_(std::move(options)),
      clock_(clock),
      budget_(MakeBudget(options_, runner)),
      pool_(runner.num_blocks()),
      index_(pool_, options_.kv_listener),
      samplers_(runner.pool().threads()),
      guide_pool_(options_.guide_threads) {
  if (options_.draft_runner == nullptr) return;
  draft_model_ = std::make_unique<DraftModel>(*options_.draft_runner, model_.eos_ids, clock_,
                                              options_.test.always_draft ? 0 : kLeastDraftChance);
}

Core::~Core() { CancelAll(); }

Status Core::Add(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink,
                 std::unique_ptr<grammar::Cursor> cursor) {
  KVASIR_RETURN_IF_ERROR(CheckRequest(*request, model_, options_));
  KVASIR_CHECK(request->constraint.has_value() == (cursor != nullptr), "a constraint has a cursor");
  if (groups_.contains(request->id)) {
    return absl::InvalidArgumentError(
        absl::StrCat("request_id: '", request->id, "' is already in flight"));
  }
  const int32_t prompt = static_cast<int32_t>(request->prompt_ids.size());
  auto group = std::make_shared<Group>();
  group->number = accepted_++;
  group->accepted = request->arrival == TimePoint() ? clock_.Now() : request->arrival;
  group->max_tokens = std::min(request->sampling.max_tokens, model_.max_model_len - prompt);
  for (int32_t choice = 0; choice < request->sampling.n; ++choice) {
    group->open_choices.push_back(choice);
  }
  group->request = std::move(request);
  group->sink = std::move(sink);
  groups_.emplace(group->request->id, group);
  ++queued_;
  queued_prompt_tokens_ += prompt;
  auto sequence = std::make_unique<Sequence>(group, model_.block_size,
                                             options_.enable_prefix_caching, std::move(cursor));
  if (group->request->beams) StartBeams(*group, sequence.get());
  Enqueue(std::move(sequence));
  return absl::OkStatus();
}

void Core::Enqueue(std::unique_ptr<Sequence> sequence) {
  const schedule::Rank rank = sequence->rank();
  const bool added = waiting_.emplace(rank, std::move(sequence)).second;
  KVASIR_CHECK(added, "no two sequences have one rank");
}

void Core::MakeRunning(std::unique_ptr<Sequence> sequence) {
  const auto place =
      std::lower_bound(running_.begin(), running_.end(), sequence->rank(), RanksBefore);
  running_.insert(place, std::move(sequence));
}

std::unique_ptr<Sequence> Core::TakeRunning(Sequence* sequence) {
  const auto place =
      std::lower_bound(running_.begin(), running_.end(), sequence->rank(), RanksBefore);
  KVASIR_CHECK(place != running_.end() && place->get() == sequence, "the sequence runs");
  std::unique_ptr<Sequence> taken = std::move(*place);
  running_.erase(place);
  return taken;
}

void Core::Preempt(Sequence* sequence) {
  std::unique_ptr<Sequence> taken = TakeRunning(sequence);
  Release(*taken);
  Enqueue(std::move(taken));
}

// The blocks of a sequence that stops are the latest used.
void Core::Release(Sequence& sequence) {
  if (sequence.published > 0) index_.Touch(sequence.block_hashes()[sequence.published - 1]);
  sequence.ReleaseBlocks();
}

void Core::End(Sequence& sequence) {
  Release(sequence);
  sequence.done = true;
}

void Core::EmitFinish(Group& group, int32_t choice, FinishReason reason, const Status& error) {
  group.sink->OnEvent(
      {.choice = choice, .finish = reason, .error = error, .cached_tokens = group.cached_tokens});
  Close(group, choice);
}

void Core::ObserveOutputs(int32_t outputs) {
  mean_outputs_ += kOutputsWeight * (outputs - mean_outputs_);
}

// The choice has had its last event.
void Core::Close(Group& group, int32_t choice) {
  std::erase(group.open_choices, choice);
  if (!group.open_choices.empty()) return;
  if (!group.started) {
    --queued_;
    queued_prompt_tokens_ -= static_cast<int64_t>(group.request->prompt_ids.size());
  }
  groups_.erase(group.request->id);
}

void Core::Finish(Sequence& sequence, FinishReason reason, const Status& error) {
  const std::shared_ptr<Group> group = sequence.shared_group();
  const std::vector<int32_t> choices =
      sequence.IsOneChoice() ? std::vector<int32_t>{sequence.choice()} : group->open_choices;
  for (int32_t choice : choices) EmitFinish(*group, choice, reason, error);
  group->beams ? EndBeams(*group) : End(sequence);
}

void Core::RemoveDone() {
  std::erase_if(running_, [](const auto& sequence) { return sequence->done; });
  std::erase_if(waiting_, [](const auto& entry) { return entry.second->done; });
}

std::vector<Sequence*> Core::AllSequences() const {
  std::vector<Sequence*> all;
  for (const auto& sequence : running_) all.push_back(sequence.get());
  for (const auto& [rank, sequence] : waiting_) all.push_back(sequence.get());
  return all;
}

void Core::Cancel(const std::string& request_id, std::optional<int32_t> choice) {
  const auto it = groups_.find(request_id);
  if (it == groups_.end()) return;
  const std::shared_ptr<Group> group = it->second;
  CancelGroup(*group, choice);
  RemoveDone();
}

void Core::CancelAll() {
  for (Sequence* sequence : AllSequences()) {
    if (!sequence->done) Finish(*sequence, FinishReason::kCancelled);
  }
  RemoveDone();
}

void Core::CancelGroup(Group& group, std::optional<int32_t> choice) {
  for (Sequence* sequence : AllSequences()) {
    if (&sequence->group() == &group && !sequence->done) CancelChoice(*sequence, choice);
  }
}

// A sequence that stands for several choices goes on for the others: as do the beams, whose answer
// is only left out.
void Core::CancelChoice(Sequence& sequence, std::optional<int32_t> choice) {
  const std::vector<int32_t>& open = sequence.group().open_choices;
  if (!choice || (sequence.IsOneChoice() && sequence.choice() == *choice)) {
    Finish(sequence, FinishReason::kCancelled);
  } else if (!sequence.IsOneChoice() &&
             std::find(open.begin(), open.end(), *choice) != open.end()) {
    if (open.size() == 1) return Finish(sequence, FinishReason::kCancelled);
    EmitFinish(sequence.group(), *choice, FinishReason::kCancelled, absl::OkStatus());
  }
}

void Core::ExpireDeadlines(TimePoint now) {
  std::vector<std::shared_ptr<Group>> late;
  for (const auto& [id, group] : groups_) {
    if (group->request->deadline <= now) late.push_back(group);
  }
  if (late.empty()) return;
  for (const auto& group : late) CancelGroup(*group, std::nullopt);
  RemoveDone();
}

EngineStats Core::stats() const {
  EngineStats stats = counters_;
  stats.running = static_cast<int64_t>(running_.size());
  stats.waiting = static_cast<int64_t>(waiting_.size());
  stats.blocks_total = pool_.size();
  stats.blocks_cached = pool_.idle_cached();
  stats.blocks_held = pool_.size() - pool_.free() - pool_.idle_cached();
  return stats;
}

// One more queued request starts when the ones before it are prefilled and, with every slot taken,
// when the first running one has ended.
int64_t Core::RetryAfterSeconds() const {
  perf::StepShape prefill, decode;
  prefill.AddPrefill(0, 1 + queued_prompt_tokens_ / std::max(1, queued_));
  double seconds = step_model_.Predict(prefill);
  if (static_cast<int32_t>(running_.size()) >= options_.max_num_seqs) {
    int32_t left = model_.max_model_len;
    for (const auto& sequence : running_) {
      decode.AddDecode(sequence->length());
      left = std::min(left, sequence->group().max_tokens - sequence->outputs());
    }
    seconds += left * step_model_.Predict(decode);
  }
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(seconds)));
}

// The prompts before it are prefilled one after the other, and each time that all slots are taken
// they are waited for as long as a choice of the usual length takes.
double Core::QueueSeconds() const {
  perf::StepShape prefill, decode;
  if (queued_ > 0) prefill.AddPrefill(0, queued_prompt_tokens_ / queued_);
  double seconds = queued_ * (queued_ > 0 ? step_model_.Predict(prefill) : 0);
  for (const auto& sequence : running_) decode.AddDecode(sequence->length());
  const int32_t others = static_cast<int32_t>(running_.size() + waiting_.size());
  const int32_t turns = others / options_.max_num_seqs;
  if (turns > 0 && decode.decodes > 0) {
    seconds += turns * mean_outputs_ * step_model_.Predict(decode);
  }
  return seconds;
}

Status Core::CheckIntegrity() const {
  KVASIR_RETURN_IF_ERROR(pool_.CheckIntegrity());
  KVASIR_RETURN_IF_ERROR(index_.CheckIntegrity());
  KVASIR_RETURN_IF_ERROR(CheckBeamIntegrity());
  int32_t drafting = draft_model_ ? draft_model_->held_blocks() : 0;
  std::vector<int32_t> holds(pool_.size(), 0);
  for (const Sequence* sequence : AllSequences()) {
    if (sequence->draft_kv) drafting -= static_cast<int32_t>(sequence->draft_kv->blocks.size());
    for (size_t i = 0; i < sequence->blocks().size(); ++i) {
      const BlockId id = sequence->blocks()[i].id();
      ++holds[id];
      if (sequence->page_table()[i] != id) {
        return absl::InternalError(absl::StrCat("a page table is wrong about block ", id));
      }
    }
  }
  if (drafting != 0) return absl::InternalError("blocks of the draft model leaked");
  for (BlockId id = 0; id < pool_.size(); ++id) {
    const int32_t known = holds[id] + (pool_.cached(id) ? 1 : 0);
    if (pool_.refs(id) != known) {
      return absl::InternalError(absl::StrCat("block ", id, " leaked: it has ", pool_.refs(id),
                                              " handles, of which ", known, " are known"));
    }
  }
  return absl::OkStatus();
}

}  // namespace kvasir::engine
