#include "sim/sim_worker.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kvasir::sim {

namespace {

double Seconds(TimePoint time) { return ToSeconds(time.time_since_epoch()); }

}  // namespace

SimWorker::SimWorker(int32_t blocks, int32_t block_tokens, const perf::StepCoefficients& times)
    : block_tokens_(block_tokens), times_(times), pool_(blocks), index_(pool_, &recorder_) {}

SimWorker::Served SimWorker::Serve(const TraceRequest& request, TimePoint now) {
  const router::WorkerState before = State(now);
  Served served;
  served.cached_blocks = Cache(request.blocks);
  const int64_t cached =
      std::min(int64_t{served.cached_blocks} * block_tokens_, request.input_tokens - 1);
  perf::StepShape prefill;
  prefill.AddPrefill(cached, request.input_tokens - cached);
  served.prefill_seconds = times_.Predict(prefill);
  busy_until_ = std::max(Seconds(now), busy_until_) + served.prefill_seconds +
                SlowedBy(before, served.prefill_seconds);
  served.ttft = busy_until_ - Seconds(now);
  load_ += router::AddedLoad(before, request.input_tokens - cached);

  perf::StepShape decode{.decodes = before.decodes, .decode_context = before.decode_context};
  decode.AddDecode(request.input_tokens + request.output_tokens / 2);
  const double output = static_cast<double>(request.output_tokens) * times_.Predict(decode);
  accepted_.push_back({.first_token = busy_until_,
                       .end = busy_until_ + output,
                       .context = request.input_tokens,
                       .blocks = static_cast<int32_t>(request.blocks.size())});
  return served;
}

// Returns how many blocks were there. A prompt longer than the cache leaves its tail out.
int32_t SimWorker::Cache(const std::vector<Hash128>& blocks) {
  std::vector<kv::BlockRef> held = index_.Match(blocks);
  const auto cached = static_cast<int32_t>(held.size());
  for (size_t i = held.size(); i < blocks.size(); ++i) {
    if (pool_.free() == 0) index_.Evict(1);
    kv::BlockRef block = pool_.Allocate();
    if (!block) break;
    held.push_back(
        index_.Insert(blocks[i], i > 0 ? blocks[i - 1] : Hash128(), i == 0, {}, std::move(block)));
  }
  return cached;
}

router::WorkerState SimWorker::State(TimePoint time) {
  const double now = Seconds(time);
  Advance(now);
  router::WorkerState state{.up = true, .times = times_, .load = load_, .kv_blocks = pool_.size()};
  if (busy_until_ > now) state.queue.push_back({0, busy_until_ - now});
  for (const Accepted& accepted : accepted_) {
    ++state.requests;
    state.kv_held += accepted.blocks;
    if (accepted.first_token > now) continue;
    ++state.decodes;
    state.decode_context += accepted.context;
  }
  return state;
}

void SimWorker::Advance(double now) {
  std::erase_if(accepted_, [&](const Accepted& accepted) { return accepted.end <= now; });
  load_ *= std::exp(-(now - advanced_) / router::kLoadWindow);
  advanced_ = now;
}

std::vector<BlockEvent> SimWorker::TakeEvents() {
  std::vector<BlockEvent> events;
  if (!recorder_.removed.empty()) {
    events.push_back({.stored = false, .blocks = std::exchange(recorder_.removed, {})});
  }
  if (!recorder_.stored.empty()) {
    events.push_back({.stored = true, .blocks = std::exchange(recorder_.stored, {})});
  }
  return events;
}

Status SimWorker::CheckIntegrity() const {
  KVASIR_RETURN_IF_ERROR(pool_.CheckIntegrity());
  return index_.CheckIntegrity();
}

}  // namespace kvasir::sim
