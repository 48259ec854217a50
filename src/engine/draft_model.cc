#include "engine/draft_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/sequence.h"

namespace kvasir::engine {
namespace {

// Tokens that are read in one step for sequences which are not drafted for yet, so that the others
// do not wait long.
constexpr int32_t kReadAhead = 128;
// A sequence that is further behind than this is read up to first.
constexpr int32_t kMaxBehind = 64;

int64_t CommonPrefix(absl::Span<const TokenId> a, absl::Span<const TokenId> b) {
  const size_t most = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + most, b.begin()).first - a.begin();
}

}  // namespace

DraftModel::DraftModel(runtime::Runner& runner, std::vector<TokenId> eos_ids, const Clock& clock,
                       double least_chance)
    : runner_(runner),
      eos_ids_(std::move(eos_ids)),
      clock_(clock),
      least_chance_(least_chance),
      pool_(runner.num_blocks()) {}

double DraftModel::SecondsPerRound(int64_t sequences, int64_t length) const {
  perf::StepShape shape;
  shape.decodes = sequences;
  shape.decode_context = sequences * length;
  return step_model_.Predict(shape);
}

int64_t DraftModel::Unpaid(const Sequence& sequence) const {
  const int64_t length = static_cast<int64_t>(sequence.tokens().size());
  const DraftKv* const kv = sequence.draft_kv.get();
  const int64_t known =
      kv == nullptr ? 0 : std::max(kv->paid, static_cast<int64_t>(kv->tokens.size()));
  return length - known > kMaxBehind ? length - known : 0;
}

void DraftModel::MarkPaid(Sequence& sequence) const {
  if (sequence.draft_kv == nullptr) sequence.draft_kv = std::make_unique<DraftKv>();
  sequence.draft_kv->paid = static_cast<int64_t>(sequence.tokens().size());
}

double DraftModel::SecondsToRead(int64_t tokens) const {
  perf::StepShape shape;
  shape.AddPrefill(0, kReadAhead);
  return step_model_.Predict(shape) * static_cast<double>(tokens) / kReadAhead;
}

bool DraftModel::Reserve(DraftKv& kv, int64_t tokens) {
  const int64_t block = runner_.block_size();
  while (static_cast<int64_t>(kv.blocks.size()) * block < tokens) {
    kv::BlockRef ref = pool_.Allocate();
    if (!ref) return false;
    kv.page_table.push_back(ref.id());
    kv.blocks.push_back(std::move(ref));
  }
  return true;
}

// What is to be computed for the wish. False where it drafts nothing now.
bool DraftModel::Prepare(Wish& wish, Draft* draft, int32_t* reading) {
  Sequence& sequence = *wish.sequence;
  if (sequence.draft_kv == nullptr) sequence.draft_kv = std::make_unique<DraftKv>();
  DraftKv& kv = *sequence.draft_kv;
  const absl::Span<const TokenId> tokens = sequence.tokens();
  // Drafts that did not come true are forgotten; a row is needed of the last token.
  const int64_t known = std::min<int64_t>(CommonPrefix(kv.tokens, tokens), tokens.size() - 1);
  kv.tokens.resize(known);
  int64_t behind = static_cast<int64_t>(tokens.size()) - known;
  draft->sequence = &sequence;
  draft->wish = &wish;
  draft->most = wish.most;
  if (behind > kMaxBehind) {
    behind = std::min<int64_t>(behind - 1, *reading);
    *reading -= static_cast<int32_t>(behind);
    draft->most = 0;
  }
  if (behind == 0 || !Reserve(kv, known + behind + draft->most)) return false;
  draft->pending.assign(tokens.begin() + known, tokens.begin() + known + behind);
  return true;
}

Status DraftModel::Propose(absl::Span<Wish> wishes) {
  std::vector<Draft> drafts;
  int32_t reading = kReadAhead;
  int64_t tokens = 0;
  for (Wish& wish : wishes) {
    Draft draft;
    if (tokens + kReadAhead > runner_.max_batch_tokens()) break;
    if (!Prepare(wish, &draft, &reading)) continue;
    tokens += static_cast<int64_t>(draft.pending.size());
    drafts.push_back(std::move(draft));
  }
  while (!drafts.empty()) {
    KVASIR_RETURN_IF_ERROR(RunRound(drafts));
    std::erase_if(drafts, [](const Draft& draft) { return !draft.open; });
  }
  return absl::OkStatus();
}

Status DraftModel::RunRound(std::vector<Draft>& drafts) {
  const TimePoint start = clock_.Now();
  batch_.sequences.clear();
  perf::StepShape shape;
  int64_t rows = 0;
  double tokens = 0;
  for (const Draft& draft : drafts) {
    const DraftKv& kv = *draft.sequence->draft_kv;
    const int32_t computed = static_cast<int32_t>(kv.tokens.size());
    const int32_t row = draft.most > 0 ? 1 : 0;
    batch_.sequences.push_back(
        {.tokens = draft.pending, .start = computed, .blocks = kv.page_table, .logits = row});
    rows += row;
    const int64_t pending = static_cast<int64_t>(draft.pending.size());
    tokens += static_cast<double>(pending);
    pending == 1 ? shape.AddDecode(computed + 1) : shape.AddPrefill(computed, pending);
  }
  logits_.resize(rows * runner_.vocab_size());
  KVASIR_RETURN_IF_ERROR(runner_.Run(batch_, {.logits = absl::MakeSpan(logits_)}));
  const double seconds = ToSeconds(clock_.Now() - start);
  step_model_.Observe(shape, seconds);
  absl::Span<const float> left = logits_;
  for (Draft& draft : drafts) {
    std::vector<TokenId>& known = draft.sequence->draft_kv->tokens;
    known.insert(known.end(), draft.pending.begin(), draft.pending.end());
    if (draft.most == 0) {
      draft.open = false;
      continue;
    }
    draft.wish->seconds += seconds * static_cast<double>(draft.pending.size()) / tokens;
    Take(draft, left.first(runner_.vocab_size()));
    left.remove_prefix(runner_.vocab_size());
  }
  return absl::OkStatus();
}

// Draws the next draft as the request would draw it from this row.
void DraftModel::Take(Draft& draft, absl::Span<const float> row) {
  Sequence& sequence = *draft.sequence;
  draft.open = false;
  const sample::Position position{
      .choice = sequence.choice(),
      .index = sequence.outputs() + static_cast<int32_t>(sequence.drafts.size()),
      .counts = sequence.counts(),
      .output = sequence.tokens().last(sequence.outputs()),
      .eos_ids = eos_ids_};
  const StatusOr<TokenOut> drawn = sampler_.Sample(row, sequence.sampling(), position);
  if (!drawn.ok()) return;
  const StatusOr<TokenOut> report = sample::Sampler::Report(row, 0, drawn->id);
  if (!report.ok() || std::exp(report->logprob) < least_chance_) return;
  sequence.drafts.push_back(drawn->id);
  const bool ends = std::find(eos_ids_.begin(), eos_ids_.end(), drawn->id) != eos_ids_.end();
  draft.pending = {drawn->id};
  draft.open = !ends && static_cast<int32_t>(sequence.drafts.size()) < draft.most;
}

}  // namespace kvasir::engine
