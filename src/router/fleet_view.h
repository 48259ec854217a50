// What one frontend knows of the workers: the last report of each, what it has placed itself since,
// and the time that has passed. So a burst of requests between two reports does not all go where
// the last report saw least to do.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <deque>
#include <vector>

#include "base/clock.h"
#include "router/placement.h"

namespace kvasir::router {

// Takes `seconds` of time from the queue, the work that is sooner first.
void Drain(std::vector<QueuedWork>* queue, double seconds);
void Enqueue(std::vector<QueuedWork>* queue, QueuedWork work);

// One thread at a time. Times never go back.
class FleetView {
 public:
  explicit FleetView(int32_t max_workers);

  // What a worker says of itself. One that has come, or come back, is taken to have had the mean
  // load of the others, or it would get every request until it had caught up. `included` is the
  // last of this frontend's placements on it, as Placed numbered them, that it knows of.
  void Report(int32_t worker, WorkerState state, int64_t included, TimePoint now);

  // The worker has left, or is lost: it gets nothing until it reports again.
  void Lost(int32_t worker);

  // This frontend has sent a request where it was decided. Returns the number of the placement:
  // 1, 2, ... for each worker.
  // REQUIRES: the decision has a worker, and was made with these workers.
  int64_t Placed(const PlacementRequest& request, const RouteDecision& decision, TimePoint now);

  // All workers as they are predicted to be. [max_workers]; valid until the next call.
  absl::Span<const WorkerState> At(TimePoint now);

 private:
  // A placement that the worker has not reported yet.
  struct Unreported {
    int64_t number = 0;
    QueuedWork work;
    double load = 0;
    int32_t blocks = 0;
  };
  struct Known {
    std::deque<Unreported> unreported;
    int64_t placed = 0;
    double assumed_load = 0;  // beside what it reports
  };

  void Advance(TimePoint now);
  double MeanLoad() const;  // of those that are up
  static void Apply(const Unreported& placement, WorkerState* state);

  std::vector<WorkerState> states_;
  std::vector<Known> known_;
  TimePoint advanced_{};
};

}  // namespace kvasir::router
