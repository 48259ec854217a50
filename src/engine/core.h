// The engine: sequences from acceptance to their last token. It owns the KV blocks, the prefix
// index and the sequences, and advances them all by one step at a time; it has no thread of its
// own.
//
// A step: end what is past its deadline, plan, give up the blocks of preempted sequences, pin and
// allocate, run the batch, publish full blocks, fork choices, sample, and send the tokens out.
//
// Constraints: what the next token may be is worked out by the guide pool while the batch runs. A
// sequence whose guide is late keeps its row of logits and stalls, alone, until it comes. Tokens
// that the constraint forces are appended at once and computed with the next pass (jump-forward);
// where their log-probabilities are wanted, they are drafts instead.
//
// Drafts are tokens that a pass computes behind the known ones. Each is kept if it is the very
// token that is drawn from the row before it, so that they change the speed and never the answer.
//
// Beam search: a sequence is a live beam. Its row is reduced at once to what it offers, which is
// kept, with or without blocks, until all live beams of the request have offered (engine/beams.cc).
// Then the next ones are chosen (engine/beam_search.h): the first continuation of a beam keeps its
// sequence, the others fork it and share every block until they write, and a beam without any gives
// its blocks up. So beams take neither jumps nor drafts, nobody waits with a pass for another, and
// it does not matter which of them the scheduler computes together, late or anew.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "core/engine_client.h"
#include "engine/draft_model.h"
#include "engine/options.h"
#include "engine/sequence.h"
#include "kv/block_pool.h"
#include "kv/prefix_index.h"
#include "perf/step_model.h"
#include "runtime/runner.h"
#include "sample/sampler.h"
#include "schedule/next_step.h"

namespace kvasir::engine {

// One thread at a time. Sinks are called from within Add, Cancel and Step and must not call back.
class Core {
 public:
  // REQUIRES: CheckOptions(options) holds and `model` went through FitModel. `runner` and `clock`
  // outlive the core.
  Core(runtime::Runner& runner, ModelInfo model, EngineOptions options, const Clock& clock);
  ~Core();  // cancels what is in flight

  const ModelInfo& model() const { return model_; }

  // InvalidArgument when the request can never run, or its id is in flight. `cursor` is the place
  // at the beginning of the request's constraint, null when it has none.
  Status Add(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink,
             std::unique_ptr<grammar::Cursor> cursor = nullptr);

  void Cancel(const std::string& request_id, std::optional<int32_t> choice);
  void CancelAll();

  // Does one step; false when there is nothing to do. When the runner fails for good, every request
  // ends with its error.
  bool Step();
  Status failure() const { return runner_.failure(); }

  bool idle() const { return groups_.empty(); }
  // Requests that have not started yet.
  int32_t queued() const { return queued_; }
  EngineStats stats() const;
  // Predicted seconds until a place in a full queue gets free, at least 1.
  int64_t RetryAfterSeconds() const;
  // Predicted seconds until a request that came now would start.
  double QueueSeconds() const;

  // Internal, naming the first contradiction: a leaked block, a miscounted handle, a broken index.
  Status CheckIntegrity() const;

 private:
  // A sequence's share of the step under way.
  struct Item {
    Sequence* sequence = nullptr;
    int32_t tokens = 0;
    bool starts = false;
  };
  // Rows of logits to draw from: that of the last known token, then those of its drafts.
  struct Draw {
    Sequence* sequence = nullptr;
    absl::Span<const float> logits;   // [rows, vocab]
    absl::Span<const TokenId> drawn;  // [rows] instead, where the runner drew
    std::shared_ptr<const GuideJob> guides;
    // What came of it.
    std::vector<TokenOut> outs;
    int32_t rows_used = 0;
    std::optional<FinishReason> finish;
    Status error;
  };

  // core.cc: what sequences go through
  void ExpireDeadlines(TimePoint now);
  void CancelGroup(Group& group, std::optional<int32_t> choice);
  void CancelChoice(Sequence& sequence, std::optional<int32_t> choice);
  void Finish(Sequence& sequence, FinishReason reason, const Status& error = absl::OkStatus());
  void EmitFinish(Group& group, int32_t choice, FinishReason reason, const Status& error);
  void Close(Group& group, int32_t choice);
  void ObserveOutputs(int32_t outputs);
  void Release(Sequence& sequence);
  void End(Sequence& sequence);
  void RemoveDone();
  void Enqueue(std::unique_ptr<Sequence> sequence);
  void MakeRunning(std::unique_ptr<Sequence> sequence);
  std::unique_ptr<Sequence> TakeRunning(Sequence* sequence);
  void Preempt(Sequence* sequence);
  std::vector<Sequence*> AllSequences() const;
  template <typename Visit>
  void ForEachOf(const Group& group, const Visit& visit);

  // step.cc: the stages of a step
  void ProposeDrafts();
  void LookUpDrafts(absl::Span<Sequence* const> sequences, const perf::StepShape& decodes);
  void DraftByModel(absl::Span<Sequence* const> sequences, const perf::StepShape& decodes);
  bool PayForReading(Sequence& sequence);
  int32_t MostDrafts(const Sequence& sequence) const;
  int32_t DraftsWorthTrying(Sequence& sequence, int32_t most, const perf::StepShape& shape,
                            double drafting) const;
  void Plan();
  schedule::SequenceView View(const Sequence& sequence) const;
  int32_t SlotsOf(const Sequence& sequence) const;
  void SetNextHash(const Sequence& sequence, schedule::SequenceView* view) const;
  size_t StartCandidates() const;
  void ApplyPlan();
  void Start(Sequence* sequence, TimePoint now);
  void PrepareBlocks(Sequence& sequence, int32_t tokens);
  kv::BlockRef AllocateBlock();
  void AssembleBatch();
  absl::Span<const TokenId> InputOf(const Item& item);
  Status RunBatch();
  void CommitBatch();
  void CountItem(const Item& item);
  void Publish(Sequence& sequence);
  void FailBatch(const Status& error);
  void FailAll(const Status& error);

  // prompt_rows.cc: what is asked about the prompt itself
  void AskForRows(const Item& item, BatchSequence* share) const;
  void TakePromptRows(const Item& item, absl::Span<const float> logits,
                      absl::Span<const float> hidden);
  void EmitEmbedding(Sequence& sequence);
  void ScorePrompt(Sequence& sequence, int32_t end, absl::Span<const float> logits);

  absl::Span<const float> RowOf(absl::Span<const float> logits, int64_t row) const {
    return logits.subspan(row * model_.vocab_size, model_.vocab_size);
  }

  // draw.cc: from rows of logits to tokens
  void AskForGuides(Sequence& sequence, int32_t drafts);
  bool GuidesAreLate(Sequence& sequence);
  std::optional<RowDraw> RunnersDraw(const Sequence& sequence, int32_t rows) const;
  void AddDraw(Sequence& sequence, absl::Span<const float> logits, absl::Span<const TokenId> drawn);
  int32_t RowsOf(const Draw& draw) const;
  void ResumeStalled();
  void RunDraws();
  void ForkChoices();
  void DrawRows(Draw& draw, sample::Sampler& sampler) const;
  StatusOr<const grammar::Guide*> GuideOf(const Draw& draw, int32_t row) const;
  sample::Position PositionOf(const Sequence& sequence, const grammar::Guide* guide) const;
  StatusOr<TokenOut> DrawRow(const Draw& draw, int32_t row, sample::Sampler& sampler) const;
  void TakeForced(Draw& draw) const;
  bool Take(Draw& draw, TokenOut out) const;
  void CountDrafts(const Draw& draw);
  void CommitDraw(Draw& draw);
  void ShedForks();
  void PreemptForTest();

  // beams.cc: beam search
  void StartBeams(Group& group, Sequence* first) const;
  void MakeOffer(Draw& draw, sample::Sampler& sampler) const;
  StatusOr<sample::BeamOffer> OfferRow(const Draw& draw, sample::Sampler& sampler) const;
  void CommitOffer(Draw& draw);
  void AdvanceBeams();
  void ChooseBeams(Group& group);
  void ContinueBeams(Group& group, absl::Span<const Beams::Step> steps);
  Sequence* ForkBeam(const Sequence& parent);
  void AnswerBeams(Group& group);
  void EndBeams(Group& group);
  Status CheckBeamIntegrity() const;

  runtime::Runner& runner_;
  const ModelInfo model_;
  const EngineOptions options_;
  const Clock& clock_;
  const schedule::Budget budget_;

  kv::BlockPool pool_;
  kv::PrefixIndex index_;
  perf::StepModel step_model_;
  std::unique_ptr<DraftModel> draft_model_;  // null: none
  ReadingAccount reading_account_;           // the draft model's

  absl::flat_hash_map<std::string, std::shared_ptr<Group>> groups_;  // by request id
  std::vector<std::unique_ptr<Sequence>> running_;                   // in rank order
  std::map<schedule::Rank, std::unique_ptr<Sequence>> waiting_;
  int64_t accepted_ = 0;
  int32_t queued_ = 0;
  int64_t queued_prompt_tokens_ = 0;
  double mean_outputs_ = 64;  // tokens of a choice, of late; the start is a guess
  EngineStats counters_;

  // Of the step under way; kept to be reused.
  std::vector<schedule::SequenceView> running_views_;
  std::vector<schedule::SequenceView> waiting_views_;
  std::vector<Sequence*> candidates_;  // behind waiting_views_
  schedule::StepPlan plan_;
  std::vector<Item> items_;
  Batch batch_;
  std::vector<std::vector<TokenId>> inputs_;  // of items with drafts
  std::vector<float> logits_;                 // [rows, vocab]
  std::vector<float> hidden_;                 // [rows, hidden size]
  std::vector<TokenId> drawn_;                // [rows]
  std::vector<Draw> draws_;
  std::vector<sample::Sampler> samplers_;  // one a thread of the pool
  int64_t guides_asked_ = 0;
  std::optional<TimePoint> guide_deadline_;  // of the step under way, once a draw looked for one
  GuidePool guide_pool_;                     // last: its jobs end before what they work on
};

}  // namespace kvasir::engine
