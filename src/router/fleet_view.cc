#include "router/fleet_view.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kvasir::router {

void Drain(std::vector<QueuedWork>* queue, double seconds) {
  auto done = queue->begin();
  for (; done != queue->end() && done->seconds <= seconds; ++done) seconds -= done->seconds;
  if (done != queue->end()) done->seconds -= seconds;
  queue->erase(queue->begin(), done);
}

void Enqueue(std::vector<QueuedWork>* queue, QueuedWork work) {
  const auto at = std::lower_bound(
      queue->begin(), queue->end(), work.priority,
      [](const QueuedWork& queued, int32_t priority) { return queued.priority < priority; });
  if (at != queue->end() && at->priority == work.priority) {
    at->seconds += work.seconds;
  } else {
    queue->insert(at, work);
  }
}

FleetView::FleetView(int32_t max_workers) : states_(max_workers), known_(max_workers) {}

void FleetView::Report(int32_t worker, WorkerState state, int64_t included, TimePoint now) {
  Advance(now);
  Known& known = known_[worker];
  if (!states_[worker].up) known.assumed_load = std::max(0.0, MeanLoad() - state.load);
  states_[worker] = std::move(state);
  states_[worker].load += known.assumed_load;
  std::deque<Unreported>& unreported = known.unreported;
  while (!unreported.empty() && unreported.front().number <= included) unreported.pop_front();
  for (const Unreported& placement : unreported) Apply(placement, &states_[worker]);
}

void FleetView::Lost(int32_t worker) {
  states_[worker] = WorkerState();
  known_[worker].unreported.clear();
}

int64_t FleetView::Placed(const PlacementRequest& request, const RouteDecision& decision,
                          TimePoint now) {
  Advance(now);
  const RouteCandidate& chosen = decision.chosen();
  const int64_t tokens = request.prompt_tokens + request.expected_output;
  const Unreported placement = {
      .number = ++known_[chosen.worker].placed,
      .work = {request.priority, chosen.cost.prefill + chosen.cost.slowed},
      .load = AddedLoad(states_[chosen.worker], chosen.computed_tokens),
      .blocks = static_cast<int32_t>((tokens + request.block_tokens - 1) / request.block_tokens)};
  Apply(placement, &states_[chosen.worker]);
  known_[chosen.worker].unreported.push_back(placement);
  return placement.number;
}

absl::Span<const WorkerState> FleetView::At(TimePoint now) {
  Advance(now);
  return states_;
}

void FleetView::Advance(TimePoint now) {
  const double seconds = ToSeconds(now - advanced_);
  if (seconds <= 0) return;
  advanced_ = now;
  const double kept = std::exp(-seconds / kLoadWindow);
  for (WorkerState& state : states_) {
    Drain(&state.queue, seconds);
    state.load *= kept;
  }
  for (Known& known : known_) known.assumed_load *= kept;
}

double FleetView::MeanLoad() const {
  double sum = 0;
  int32_t up = 0;
  for (const WorkerState& state : states_) {
    if (!state.up) continue;
    sum += state.load;
    ++up;
  }
  return up == 0 ? 0 : sum / up;
}

void FleetView::Apply(const Unreported& placement, WorkerState* state) {
  Enqueue(&state->queue, placement.work);
  state->load += placement.load;
  ++state->requests;
  state->kv_held += placement.blocks;
}

}  // namespace kvasir::router
