// The routing policy: which worker a request goes to. A pure function of what a frontend knows.
//
// The default, least time, takes the least of
//   queue + prefill of what is not cached + what decodes add to it + fetching of cached blocks +
//     decoding beside what decodes there: predicted for the request itself;
//   others: (weight - 1) * prefill, since those behind it wait too, and its blocks push out theirs;
//   balance: excess * prefill of the whole prompt; the excess is 0 at the mean load, 1 at the
//   bound,
//     and at least -1
// among those whose load is within the bound, so many times the mean and a slack: consistent
// hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018) with time in the hash's
// place. Of those that are nearly as good as the best, two are drawn and the less loaded one is
// taken (Mitzenmacher's power of two choices), so that frontends that know nothing of each other's
// last placements do not all choose alike. docs/routing.md has the figures.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/route_decision.h"
#include "perf/step_model.h"

namespace kvasir::router {

// What a worker does, and what part of a request is placed.
enum class Role { kBoth, kPrefill, kDecode };

// Prefill that was accepted and is not computed yet.
struct QueuedWork {
  int32_t priority = 0;  // lower is sooner, as in Request
  double seconds = 0;
};

// A worker as the router sees it.
struct WorkerState {
  bool up = false;  // takes requests
  Role role = Role::kBoth;
  perf::StepCoefficients times;
  std::vector<QueuedWork> queue;  // ascending priorities, each once
  double load = 0;                // see AddedLoad
  int32_t requests = 0;           // accepted and not finished
  int32_t max_requests = std::numeric_limits<int32_t>::max();
  int64_t decodes = 0;         // sequences
  int64_t decode_context = 0;  // tokens that they attend to
  int32_t kv_blocks = 0;
  int32_t kv_held = 0;  // by accepted requests
  double fetch_seconds_per_block = std::numeric_limits<double>::infinity();
};

struct PlacementRequest {
  int64_t number = 0;  // of this frontend's placements: what the choices among equals hang on
  int64_t prompt_tokens = 0;  // at least one
  int32_t block_tokens = 0;
  int64_t expected_output = 0;  // tokens
  int32_t priority = 0;
  uint64_t session = 0;  // a hash of the session's key; 0: none
  Role part = Role::kBoth;
  // How many blocks of the prompt each worker holds from its first on, and how many it could have
  // without computing them (empty: no more). [workers]
  absl::Span<const int32_t> cached;
  absl::Span<const int32_t> fetchable;
};

struct PlacementOptions {
  RoutePolicy policy = RoutePolicy::kLeastTime;
  uint64_t seed = 0;  // another one for each frontend
  // The rest is of least time alone.
  double weight = 6;  // of a second of prefill, at least 1
  // No worker gets a request whose load is more than `bound` times the mean of those that could
  // take it, plus `slack`; the least loaded always may.
  double bound = 1.05;   // at least 1
  double slack = 0.005;  // seconds of prefill a second, at least 0
  // Those are near the best whose score is higher by no more than this share of its time to the
  // first token.
  double near = 0.02;  // at least 0
};

// InvalidArgument where one is out of its range.
Status CheckOptions(const PlacementOptions& options);

// Decides for one request. A session goes to the first eligible worker in its own order of them
// (rendezvous hashing: all frontends agree without asking), whatever the policy.
// REQUIRES: request.cached.size() == workers.size(), and so of `fetchable` unless it is empty.
RouteDecision Place(absl::Span<const WorkerState> workers, const PlacementRequest& request,
                    const PlacementOptions& options);

// "least-time", "round-robin", "least-loaded", "power-of-two" or "prefix-only".
std::string_view PolicyName(RoutePolicy policy);
StatusOr<RoutePolicy> ParsePolicy(std::string_view name);

// All of them, in the order of the enum.
absl::Span<const RoutePolicy> AllPolicies();

// Loads forget: what was given this long ago counts 1/e.
inline constexpr double kLoadWindow = 600;  // seconds

// What computing `tokens` of a prompt adds to a load, which is a rate: seconds a second over the
// window, for the tokens themselves. (Not for attention: loads are to share out tokens, so that
// caches turn over at one speed; the long prompts' time is in the queue.)
double AddedLoad(const WorkerState& worker, int64_t tokens);

// The seconds that running decodes add to a prefill that takes `seconds` alone.
double SlowedBy(const WorkerState& worker, double seconds);

}  // namespace kvasir::router
