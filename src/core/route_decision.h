// Which worker a request goes to, and why: what each worker would have cost. A value, so that a
// decision can be told, kept and compared.
#pragma once

#include <cstdint>
#include <vector>

namespace kvasir {

enum class RoutePolicy { kLeastTime, kRoundRobin, kLeastLoaded, kPowerOfTwo, kPrefixOnly };

// Seconds. The first five are predicted to pass for the request itself; least time weighs the other
// two besides (router/placement.h).
struct PlacementCost {
  double queue = 0;    // until the prefill can begin
  double prefill = 0;  // of the tokens that must be computed, alone
  double slowed = 0;   // what running decodes add to that
  double fetch = 0;    // of blocks that come from a lower tier or from another worker
  double decode = 0;   // until there is room to decode, and the expected output beside what decodes

  double others = 0;   // what computing costs whoever comes after
  double balance = 0;  // for more than its share of the load; negative for less

  double ttft() const { return queue + prefill + slowed + fetch; }
  double total() const { return ttft() + decode; }
  double score() const { return total() + others + balance; }
};

// Whether a worker may be chosen, or the first reason why not.
enum class Eligibility {
  kEligible,
  kDown,       // not there, or leaving
  kOtherRole,  // does not do this part of a request
  kTooSmall,   // could not hold the request if it had nothing else
  kFull,       // has as many requests as it takes
  kOverBound,  // was given, of late, more than its share of the work
};

struct RouteCandidate {
  int32_t worker = 0;  // its slot
  Eligibility eligibility = Eligibility::kDown;
  int32_t cached_blocks = 0;    // of the prompt, that it holds
  int32_t fetched_blocks = 0;   // behind those, that it would fetch rather than compute
  int64_t computed_tokens = 0;  // of the prompt, that it would compute
  PlacementCost cost;
  double load = 0;  // of late, in seconds of prefill a second
};

struct RouteDecision {
  static constexpr int32_t kNoWorker = -1;

  RoutePolicy policy = RoutePolicy::kLeastTime;
  int32_t worker = kNoWorker;              // none where no candidate is eligible
  bool by_session = false;                 // the session's worker, whatever it costs
  double mean_load = 0;                    // of the workers that could take it
  std::vector<RouteCandidate> candidates;  // of all slots, in their order

  // REQUIRES: there is a worker.
  const RouteCandidate& chosen() const { return candidates[worker]; }
};

}  // namespace kvasir
