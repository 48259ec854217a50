// Beam search in the engine: rows to offers, offers to the next live beams, and the answer. What is
// chosen, and why it depends on nothing but the rows, is told in engine/beam_search.h.
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "engine/core.h"

namespace kvasir::engine {

void Core::StartBeams(Group& group, Sequence* first) const {
  const Request& request = *group.request;
  group.beams.emplace(LiveBeams{
      .search = Beams(*request.beams, request.sampling.n, group.max_tokens), .live = {first}});
}

// Runs on any thread of the pool: touches the draw and its sequence alone.
void Core::MakeOffer(Draw& draw, sample::Sampler& sampler) const {
  StatusOr<sample::BeamOffer> offer = OfferRow(draw, sampler);
  if (offer.ok()) {
    draw.sequence->offer = *std::move(offer);
  } else {
    draw.error = offer.status();
  }
}

StatusOr<sample::BeamOffer> Core::OfferRow(const Draw& draw, sample::Sampler& sampler) const {
  const Sequence& sequence = *draw.sequence;
  const SamplingParams& params = sequence.sampling();
  std::vector<TokenId> ends = params.stop_token_ids;
  // An end token ends what a constraint asks for even where it would be ignored.
  if (!params.ignore_eos || sequence.cursor()) {
    ends.insert(ends.end(), model_.eos_ids.begin(), model_.eos_ids.end());
  }
  KVASIR_ASSIGN_OR_RETURN(const grammar::Guide* guide, GuideOf(draw, 0));
  if (guide == nullptr || !guide->forced) {
    return sampler.Offer(draw.logits, params, PositionOf(sequence, guide), ends);
  }
  KVASIR_ASSIGN_OR_RETURN(const TokenOut forced,
                          sample::Sampler::Report(draw.logits, params.logprobs, *guide->forced));
  return sample::OfferOf(forced, std::find(ends.begin(), ends.end(), forced.id) != ends.end());
}

void Core::CommitOffer(Draw& draw) {
  Sequence& sequence = *draw.sequence;
  if (sequence.done) return;  // another beam's error has ended them all
  if (!draw.error.ok()) return Finish(sequence, FinishReason::kError, draw.error);
  if (!sequence.forked()) sequence.BecomeChoice(sequence.choice());
  if (!options_.test.on_logits) return;
  const std::vector<Sequence*>& live = sequence.group().beams->live;
  const auto index = std::find(live.begin(), live.end(), &sequence) - live.begin();
  options_.test.on_logits(sequence.request().id, static_cast<int32_t>(index), sequence.outputs(),
                          draw.logits);
}

// Chooses for each request whose last offer came with these draws.
void Core::AdvanceBeams() {
  for (const Draw& draw : draws_) {
    const std::shared_ptr<Group> group = draw.sequence->shared_group();
    if (!group->beams || draw.sequence->done || !group->beams->Complete()) continue;
    ChooseBeams(*group);
  }
}

void Core::ChooseBeams(Group& group) {
  std::vector<sample::BeamOffer> offers;
  for (Sequence* beam : group.beams->live) {
    offers.push_back(*std::exchange(beam->offer, std::nullopt));
  }
  const std::vector<Beams::Step> steps = group.beams->search.Advance(offers);
  if (steps.empty()) return AnswerBeams(group);
  ContinueBeams(group, steps);
}

void Core::ContinueBeams(Group& group, absl::Span<const Beams::Step> steps) {
  std::vector<Sequence*>& live = group.beams->live;
  const std::vector<Sequence*> parents = std::exchange(live, {});
  std::vector<bool> kept(parents.size(), false);
  // Forks first, while their parents are what they were.
  for (const Beams::Step& step : steps) {
    Sequence* parent = parents[step.parent];
    live.push_back(kept[step.parent] ? ForkBeam(*parent) : parent);
    kept[step.parent] = true;
  }
  for (size_t i = 0; i < parents.size(); ++i) {
    if (kept[i]) continue;
    parents[i]->ReleaseBlocks();
    parents[i]->done = true;
  }
  std::vector<Status> advanced(live.size());
  runner_.pool().ParallelFor(static_cast<int64_t>(live.size()), [&](int64_t i, int) {
    live[i]->Append(steps[i].token);
    if (live[i]->cursor()) advanced[i] = live[i]->cursor()->Advance(steps[i].token);
  });
  for (const Status& status : advanced) {
    if (!status.ok()) return Finish(*live.front(), FinishReason::kError, status);
  }
}

// Where the parent is: among those that run it shares the blocks, else there are none.
Sequence* Core::ForkBeam(const Sequence& parent) {
  std::unique_ptr<Sequence> owned = parent.Fork(++parent.group().beams->last_number);
  Sequence* fork = owned.get();
  if (waiting_.contains(parent.rank())) {
    Enqueue(std::move(owned));
  } else {
    MakeRunning(std::move(owned));
  }
  ++counters_.forks;
  return fork;
}

void Core::AnswerBeams(Group& group) {
  std::vector<Hypothesis> answer = group.beams->search.Answer();
  if (answer.empty()) {
    return Finish(*group.beams->live.front(), FinishReason::kError, sample::Sampler::NoTokenLeft());
  }
  EndBeams(group);
  for (const Hypothesis& hypothesis : answer) {
    ObserveOutputs(static_cast<int32_t>(hypothesis.tokens.size()));
  }
  answer.resize(group.request->sampling.n, {.finish = FinishReason::kStop});
  const std::vector<int32_t> choices = group.open_choices;
  for (const int32_t choice : choices) {
    Hypothesis& hypothesis = answer[choice];
    counters_.generated_tokens += static_cast<int64_t>(hypothesis.tokens.size());
    group.sink->OnEvent({.choice = choice,
                         .tokens = std::move(hypothesis.tokens),
                         .finish = hypothesis.finish,
                         .cached_tokens = group.cached_tokens});
    Close(group, choice);
  }
}

void Core::EndBeams(Group& group) {
  for (Sequence* beam : group.beams->live) End(*beam);
  group.beams->live.clear();
}

Status Core::CheckBeamIntegrity() const {
  const std::vector<Sequence*> known = AllSequences();
  for (const auto& [id, group] : groups_) {
    if (!group->beams) continue;
    const auto of_group = [&group](const Sequence* s) { return &s->group() == group.get(); };
    std::vector<Sequence*> of_it;
    std::copy_if(known.begin(), known.end(), std::back_inserter(of_it), of_group);
    const std::vector<Sequence*>& live = group->beams->live;
    if (!std::is_permutation(live.begin(), live.end(), of_it.begin(), of_it.end())) {
      return absl::InternalError(absl::StrCat("request ", id, " is wrong about its live beams"));
    }
  }
  return absl::OkStatus();
}

}  // namespace kvasir::engine
