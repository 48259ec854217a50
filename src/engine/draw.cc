// From rows of logits to tokens: the half of a step behind the forward pass.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/core.h"

namespace kvasir::engine {
namespace {

// What all draws of a step together wait for guides that the forward pass did not hide.
constexpr Duration kGuideGrace = std::chrono::milliseconds(1);

}  // namespace

// A guide that is on its way or there already is good for the place where it was asked for, which
// only a draw leaves.
void Core::AskForGuides(Sequence& sequence, int32_t drafts) {
  if (sequence.guides) return;
  sequence.guides = std::make_shared<GuideJob>();
  sequence.guides->cursor = sequence.cursor();
  sequence.guides->drafts.assign(sequence.drafts.begin(), sequence.drafts.begin() + drafts);
  guide_pool_.Submit(sequence.guides);
}

bool Core::GuidesAreLate(Sequence& sequence) {
  if (!sequence.guides) return false;
  const int64_t every = options_.test.late_guide_every_n;
  if (every > 0 && ++guides_asked_ % every == 0) return true;
  if (!guide_deadline_) guide_deadline_ = SteadyClock().Now() + kGuideGrace;
  return !guide_pool_.Done(*sequence.guides, *guide_deadline_);
}

// What a runner can draw itself, because nothing but the raw logits and the noise decides. (What
// leaves the first row as it is leaves those of the drafts behind it.)
std::optional<RowDraw> Core::RunnersDraw(const Sequence& sequence, int32_t rows) const {
  const SamplingParams& params = sequence.sampling();
  // A prompt that is computed becomes the first of the choices that are still wanted.
  const std::vector<int32_t>& choices = sequence.group().open_choices;
  const bool one_choice = sequence.forked() || choices.size() == 1;
  const int32_t choice = sequence.forked() || !one_choice ? sequence.choice() : choices.front();
  if (!runner_.draws() || rows == 0 || options_.test.on_logits || sequence.cursor() ||
      sequence.group().beams || sequence.request().NeedsPromptRows() || params.logprobs >= 0 ||
      !sample::LeavesLogits(params, PositionOf(sequence, nullptr))) {
    return std::nullopt;
  }
  const RowDraw draw = sample::DrawOf(params, choice, sequence.outputs());
  if (draw.temperature > 0 && (rows > 1 || !one_choice)) return std::nullopt;
  return draw;
}

int32_t Core::RowsOf(const Draw& draw) const {
  if (!draw.drawn.empty()) return static_cast<int32_t>(draw.drawn.size());
  return static_cast<int32_t>(draw.logits.size()) / model_.vocab_size;
}

void Core::AddDraw(Sequence& sequence, absl::Span<const float> logits,
                   absl::Span<const TokenId> drawn) {
  if (GuidesAreLate(sequence)) {
    const absl::Span<const float> row = logits.first(model_.vocab_size);
    sequence.held_logits.assign(row.begin(), row.end());
    ++counters_.late_guides;
    return;
  }
  draws_.push_back({.sequence = &sequence,
                    .logits = logits,
                    .drawn = drawn,
                    .guides = std::move(sequence.guides)});
}

void Core::ResumeStalled() {
  draws_.clear();
  std::vector<std::vector<float>> rows;  // moved, so that the spans stay
  for (const auto& sequence : running_) {
    if (sequence->held_logits.empty()) continue;
    if (!guide_pool_.Done(*sequence->guides, TimePoint::min())) continue;
    rows.push_back(std::move(sequence->held_logits));
    sequence->held_logits.clear();
    draws_.push_back(
        {.sequence = sequence.get(), .logits = rows.back(), .guides = std::move(sequence->guides)});
  }
  RunDraws();
  RemoveDone();
}

void Core::RunDraws() {
  if (draws_.empty()) return;
  ForkChoices();
  runner_.pool().ParallelFor(static_cast<int64_t>(draws_.size()), [this](int64_t i, int thread) {
    DrawRows(draws_[i], samplers_[thread]);
  });
  for (Draw& draw : draws_) {
    if (draw.sequence->group().beams) {
      CommitOffer(draw);
    } else {
      CountDrafts(draw);
      CommitDraw(draw);
    }
  }
  AdvanceBeams();
}

void Core::CountDrafts(const Draw& draw) {
  const int32_t tried = RowsOf(draw) - 1;
  if (tried == 0 || draw.rows_used == 0) return;
  const int32_t kept = draw.rows_used - 1;
  counters_.drafted_tokens += tried;
  counters_.accepted_drafts += kept;
  // Drafts that a constraint forces come true whatever the lookup is worth, and a choice that ended
  // says nothing of the drafts behind its end.
  if (draw.guides && draw.guides->guides->front().forced) return;
  const DraftCost& check = draw.sequence->draft_check;
  const double saved = SavedBy(kept, check) - tried * check.draft;
  draw.sequence->draft_record.Observe(draw.finish ? kept : tried, kept);
  draw.sequence->draft_record.Earn(saved);
  reading_account_.Earn(saved);
}

// A prompt that is computed becomes one sequence a choice; all draw from its row of logits.
void Core::ForkChoices() {
  const size_t prompts = draws_.size();
  for (size_t i = 0; i < prompts; ++i) {
    Sequence& first = *draws_[i].sequence;
    if (first.forked() || first.group().beams) continue;
    const std::vector<int32_t>& choices = first.group().open_choices;
    std::unique_ptr<Sequence> owned = TakeRunning(&first);
    first.BecomeChoice(choices[0]);
    MakeRunning(std::move(owned));
    for (size_t c = 1; c < choices.size(); ++c) {
      std::unique_ptr<Sequence> fork = first.Fork(choices[c]);
      draws_.push_back({.sequence = fork.get(),
                        .logits = draws_[i].logits,
                        .drawn = draws_[i].drawn,
                        .guides = draws_[i].guides});
      MakeRunning(std::move(fork));
      ++counters_.forks;
    }
  }
}

// Runs on any thread of the pool: touches the draw and its sequence alone.
void Core::DrawRows(Draw& draw, sample::Sampler& sampler) const {
  Sequence& sequence = *draw.sequence;
  if (sequence.group().beams) return MakeOffer(draw, sampler);
  const std::vector<TokenId> drafts = std::exchange(sequence.drafts, {});
  const int32_t rows = RowsOf(draw);
  const int32_t length = sequence.length();
  bool goes_on = true;
  for (int32_t row = 0; goes_on && row < rows; ++row) {
    if (row > 0 && sequence.tokens().back() != drafts[row - 1]) break;
    StatusOr<TokenOut> out = DrawRow(draw, row, sampler);
    if (!out.ok()) {
      draw.error = out.status();
      return;
    }
    ++draw.rows_used;
    goes_on = Take(draw, *std::move(out));
  }
  sequence.computed = length + draw.rows_used - 1;
  if (goes_on && options_.jump_forward && sequence.cursor()) TakeForced(draw);
  sequence.tail = sequence.length() - sequence.computed;
}

// What the constraint says of a row, null where there is none.
StatusOr<const grammar::Guide*> Core::GuideOf(const Draw& draw, int32_t row) const {
  if (!draw.guides) return nullptr;
  KVASIR_RETURN_IF_ERROR(draw.guides->guides.status());
  const std::vector<grammar::Guide>& guides = *draw.guides->guides;
  if (row >= static_cast<int32_t>(guides.size())) {
    return absl::InternalError("constraint: nobody asked what may come here");
  }
  return &guides[row];
}

sample::Position Core::PositionOf(const Sequence& sequence, const grammar::Guide* guide) const {
  sample::Position position{.choice = sequence.choice(),
                            .index = sequence.outputs(),
                            .counts = sequence.counts(),
                            .output = sequence.tokens().last(sequence.outputs()),
                            .eos_ids = model_.eos_ids};
  if (guide != nullptr) position.allowed = guide->mask;
  return position;
}

StatusOr<TokenOut> Core::DrawRow(const Draw& draw, int32_t row, sample::Sampler& sampler) const {
  if (!draw.drawn.empty()) return sample::Sampler::Drawn(draw.drawn[row]);
  const Sequence& sequence = *draw.sequence;
  const absl::Span<const float> logits = RowOf(draw.logits, row);
  KVASIR_ASSIGN_OR_RETURN(const grammar::Guide* guide, GuideOf(draw, row));
  if (guide != nullptr && guide->forced) {
    return sample::Sampler::Report(logits, sequence.sampling().logprobs, *guide->forced);
  }
  return sampler.Sample(logits, sequence.sampling(), PositionOf(sequence, guide));
}

// Jump-forward: what the constraint forces next needs no row. Where its log-probability is wanted
// it does, and is drafted.
void Core::TakeForced(Draw& draw) const {
  Sequence& sequence = *draw.sequence;
  const std::deque<TokenId>& forced = sequence.cursor()->forced();
  if (sequence.sampling().logprobs < 0) {
    while (!forced.empty() && Take(draw, {.id = forced.front()})) {
    }
    return;
  }
  const size_t room = sequence.group().max_tokens - sequence.outputs() - 1;
  sequence.drafts.assign(forced.begin(), forced.begin() + std::min(room, forced.size()));
}

// Appends a token; whether the choice goes on.
bool Core::Take(Draw& draw, TokenOut out) const {
  Sequence& sequence = *draw.sequence;
  const TokenId token = out.id;
  sequence.Append(token);
  draw.outs.push_back(std::move(out));
  grammar::Cursor* cursor = sequence.cursor().get();
  const auto& ends = model_.eos_ids;
  const bool ends_constraint = cursor && std::find(ends.begin(), ends.end(), token) != ends.end();
  if (ends_constraint || sample::IsEnd(sequence.sampling(), ends, token)) {
    draw.finish = FinishReason::kStop;
  } else if (sequence.outputs() >= sequence.group().max_tokens) {
    draw.finish = FinishReason::kLength;
  } else if (cursor) {
    draw.error = cursor->Advance(token);
  }
  return !draw.finish && draw.error.ok();
}

void Core::CommitDraw(Draw& draw) {
  Sequence& sequence = *draw.sequence;
  const int32_t first = sequence.outputs() - static_cast<int32_t>(draw.outs.size());
  if (options_.test.on_logits) {
    for (int32_t row = 0; row < draw.rows_used; ++row) {
      options_.test.on_logits(sequence.request().id, sequence.choice(), first + row,
                              RowOf(draw.logits, row));
    }
  }
  counters_.generated_tokens += static_cast<int64_t>(draw.outs.size());
  Group& group = sequence.group();
  if (!draw.outs.empty()) {
    counters_.forced_tokens += static_cast<int64_t>(draw.outs.size()) - draw.rows_used;
    TokenEvent event{.choice = sequence.choice(),
                     .tokens = std::move(draw.outs),
                     .finish = draw.finish,
                     .cached_tokens = group.cached_tokens};
    group.sink->OnEvent(std::move(event));
  }
  if (!draw.error.ok()) return Finish(sequence, FinishReason::kError, draw.error);
  Publish(sequence);
  if (!draw.finish) return sequence.TrimBlocks();
  ObserveOutputs(sequence.outputs());
  End(sequence);
  Close(group, sequence.choice());
}

}  // namespace kvasir::engine
