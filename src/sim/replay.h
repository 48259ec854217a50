// Replays a trace through the router's placement and simulated workers, in virtual time: what the
// policy is worth before a fleet is there to try it on.
//
// Frontends take requests in turn. Each has its own view of the workers: their reports, which come
// late, their KV events, which come late or are silently lost, and its own placements.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "router/placement.h"
#include "sim/trace.h"

namespace kvasir::sim {

// OPT-13B on four A100-80G, as DistServe's authors measured it (Zhong et al., OSDI 2024; their
// simulator's profile of facebook/opt-13b at tensor parallelism 4). Its l^2 is two pairs.
inline constexpr perf::StepCoefficients kProfile = {
    .decode = {10.256232e-3, 1.8786702e-7, 3.2692736e-5},
    .prefill = {12.062297e-3, 3.8081401e-5, 2 * 5.2262497e-10}};

struct ReplayOptions {
  int32_t workers = 8;
  int32_t blocks = 5859;  // of each worker's cache
  perf::StepCoefficients times = kProfile;
  int32_t frontends = 1;
  double report_interval = 0.25;  // seconds between a worker's reports
  double delay = 0.02;            // seconds that reports and events take
  double lose_events = 0;         // share of the KV events that no frontend gets, each on its own
  router::PlacementOptions placement;
};

struct ReplayResult {
  RoutePolicy policy = RoutePolicy::kLeastTime;
  int64_t requests = 0;
  int64_t refused = 0;  // no worker could take them
  // Of those served: blocks and tokens of the prompts, those that the worker had, and those that
  // the frontend believed it had.
  int64_t blocks = 0, hit_blocks = 0, believed_blocks = 0;
  int64_t tokens = 0, hit_tokens = 0;
  std::vector<int64_t> work_blocks;   // computed, of each worker
  std::vector<double> work_seconds;   // of prefill alone, of each worker
  std::vector<double> ttft;           // seconds, ascending
  std::vector<double> decision_time;  // wall seconds, ascending: match and placement
  int64_t events = 0, lost_events = 0;
};

// `done` of `total` requests.
using Progress = std::function<void(int64_t done, int64_t total)>;

// `clock` measures the decisions alone. InvalidArgument where an option is out of range.
StatusOr<ReplayResult> Replay(const Trace& trace, const ReplayOptions& options, const Clock& clock,
                              const Progress& progress);

}  // namespace kvasir::sim
