#include "router/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <tuple>

namespace kvasir::router {
namespace {

// A step with decodes is filled with prefill up to this, so decodes take their own time's share.
constexpr double kStepTarget = 0.05;  // seconds
constexpr double kMostDecodeShare = 0.8;

struct NamedPolicy {
  RoutePolicy policy;
  std::string_view name;
};
constexpr std::array<NamedPolicy, 5> kPolicies = {{{RoutePolicy::kLeastTime, "least-time"},
                                                   {RoutePolicy::kRoundRobin, "round-robin"},
                                                   {RoutePolicy::kLeastLoaded, "least-loaded"},
                                                   {RoutePolicy::kPowerOfTwo, "power-of-two"},
                                                   {RoutePolicy::kPrefixOnly, "prefix-only"}}};
constexpr std::array<RoutePolicy, 5> kAllPolicies = {
    RoutePolicy::kLeastTime, RoutePolicy::kRoundRobin, RoutePolicy::kLeastLoaded,
    RoutePolicy::kPowerOfTwo, RoutePolicy::kPrefixOnly};

// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

double QueuedSeconds(const WorkerState& worker, int32_t priority) {
  double seconds = 0;
  for (const QueuedWork& work : worker.queue) {
    if (work.priority <= priority) seconds += work.seconds;
  }
  return seconds;
}

double AllQueued(const WorkerState& worker) {
  return QueuedSeconds(worker, std::numeric_limits<int32_t>::max());
}

double StepSeconds(const WorkerState& worker) {
  return worker.times.Predict({.decodes = worker.decodes, .decode_context = worker.decode_context});
}

class Decider {
 public:
  Decider(absl::Span<const WorkerState> workers, const PlacementRequest& request,
          const PlacementOptions& options)
      : workers_(workers), request_(request), options_(options) {
    decision_.policy = options.policy;
  }

  RouteDecision Run() {
    decision_.candidates.reserve(workers_.size());
    for (size_t i = 0; i < workers_.size(); ++i) AddCandidate(static_cast<int32_t>(i));
    if (options_.policy == RoutePolicy::kLeastTime) ApplyBound();
    for (const RouteCandidate& c : decision_.candidates) {
      if (c.eligibility == Eligibility::kEligible) eligible_.push_back(c.worker);
    }
    if (!eligible_.empty()) decision_.worker = Choose();
    return std::move(decision_);
  }

 private:
  void AddCandidate(int32_t i) {
    RouteCandidate candidate{.worker = i,
                             .eligibility = EligibilityOf(workers_[i]),
                             .cached_blocks = request_.cached[i],
                             .load = workers_[i].load};
    if (candidate.eligibility != Eligibility::kDown) SetCost(workers_[i], &candidate);
    decision_.candidates.push_back(candidate);
  }

  int64_t BlocksNeeded() const {
    const int64_t tokens = request_.prompt_tokens + request_.expected_output;
    return (tokens + request_.block_tokens - 1) / request_.block_tokens;
  }

  Eligibility EligibilityOf(const WorkerState& worker) const {
    if (!worker.up) return Eligibility::kDown;
    if (worker.role != Role::kBoth && worker.role != request_.part) return Eligibility::kOtherRole;
    if (BlocksNeeded() > worker.kv_blocks) return Eligibility::kTooSmall;
    if (worker.requests >= worker.max_requests) return Eligibility::kFull;
    return Eligibility::kEligible;
  }

  void SetCost(const WorkerState& worker, RouteCandidate* candidate) const {
    PlacementCost& cost = candidate->cost;
    cost.queue = QueuedSeconds(worker, request_.priority);
    cost.prefill = PrefillSeconds(worker, candidate->cached_blocks);
    FetchWherePays(worker, candidate);
    candidate->computed_tokens = AbsentTokens(candidate->cached_blocks + candidate->fetched_blocks);
    cost.slowed = SlowedBy(worker, cost.prefill);
    if (request_.part != Role::kPrefill) cost.decode = DecodeSeconds(worker);
    if (options_.policy == RoutePolicy::kLeastTime) {
      cost.others = (options_.weight - 1) * (cost.prefill + cost.slowed);
    }
  }

  // At least one token is computed, whatever is cached.
  int64_t AbsentTokens(int32_t present_blocks) const {
    const int64_t present = int64_t{present_blocks} * request_.block_tokens;
    return std::max(request_.prompt_tokens - present, int64_t{1});
  }

  double PrefillSeconds(const WorkerState& worker, int32_t present_blocks) const {
    const int64_t absent = AbsentTokens(present_blocks);
    perf::StepShape shape;
    shape.AddPrefill(request_.prompt_tokens - absent, absent);
    return worker.times.Predict(shape);
  }

  void FetchWherePays(const WorkerState& worker, RouteCandidate* candidate) const {
    if (request_.fetchable.empty()) return;
    const int32_t blocks = request_.fetchable[candidate->worker] - candidate->cached_blocks;
    if (blocks <= 0) return;
    const double fetch = blocks * worker.fetch_seconds_per_block;
    const double prefill = PrefillSeconds(worker, candidate->cached_blocks + blocks);
    if (fetch + prefill >= candidate->cost.prefill) return;
    candidate->cost.fetch = fetch;
    candidate->cost.prefill = prefill;
    candidate->fetched_blocks = blocks;
  }

  // Held blocks come free as decodes end, evenly over the time that an output takes.
  double DecodeSeconds(const WorkerState& worker) const {
    const int64_t context = request_.prompt_tokens + request_.expected_output / 2;
    perf::StepShape shape{.decodes = worker.decodes, .decode_context = worker.decode_context};
    shape.AddDecode(context);
    const double output =
        static_cast<double>(request_.expected_output) * worker.times.Predict(shape);
    const int64_t missing = BlocksNeeded() - (worker.kv_blocks - worker.kv_held);
    if (missing <= 0 || worker.kv_held == 0) return output;
    return output * (1 + static_cast<double>(missing) / worker.kv_held);
  }

  void ApplyBound() {
    double sum = 0;
    double least = std::numeric_limits<double>::infinity();
    int32_t count = 0;
    for (const RouteCandidate& c : decision_.candidates) {
      if (c.eligibility != Eligibility::kEligible) continue;
      sum += c.load;
      least = std::min(least, c.load);
      ++count;
    }
    if (count == 0) return;
    decision_.mean_load = sum / count;
    const double allowed = (options_.bound - 1) * decision_.mean_load + options_.slack;
    const double most = std::max(least, decision_.mean_load + allowed);
    for (RouteCandidate& c : decision_.candidates) {
      if (c.eligibility != Eligibility::kEligible) continue;
      if (c.load > most) c.eligibility = Eligibility::kOverBound;
      const double excess = allowed > 0 ? (c.load - decision_.mean_load) / allowed : 0;
      c.cost.balance = std::max(excess, -1.0) * PrefillSeconds(workers_[c.worker], 0);
    }
  }

  int32_t Choose() {
    if (request_.session != 0) return ChooseForSession();
    switch (options_.policy) {
      case RoutePolicy::kLeastTime:
        return ChooseLeastTime();
      case RoutePolicy::kRoundRobin:
        return eligible_[request_.number % static_cast<int64_t>(eligible_.size())];
      case RoutePolicy::kLeastLoaded:
        return *std::min_element(eligible_.begin(), eligible_.end(), [&](int32_t a, int32_t b) {
          return Outstanding(a) < Outstanding(b);
        });
      case RoutePolicy::kPowerOfTwo:
        return LessOfTwo(eligible_, [&](int32_t i) { return Outstanding(i); });
      case RoutePolicy::kPrefixOnly:
        return *std::min_element(eligible_.begin(), eligible_.end(), [&](int32_t a, int32_t b) {
          return PrefixOrder(a) < PrefixOrder(b);
        });
    }
    return RouteDecision::kNoWorker;
  }

  int32_t ChooseForSession() {
    decision_.by_session = true;
    const auto weight = [&](int32_t i) {
      return Mix(request_.session ^ Mix(static_cast<uint64_t>(i)));
    };
    return *std::max_element(eligible_.begin(), eligible_.end(),
                             [&](int32_t a, int32_t b) { return weight(a) < weight(b); });
  }

  int32_t ChooseLeastTime() {
    const auto score = [&](int32_t i) { return decision_.candidates[i].cost.score(); };
    const int32_t best =
        *std::min_element(eligible_.begin(), eligible_.end(),
                          [&](int32_t a, int32_t b) { return score(a) < score(b); });
    const double most = score(best) + options_.near * decision_.candidates[best].cost.ttft();
    std::vector<int32_t> near;
    for (int32_t i : eligible_) {
      if (score(i) <= most) near.push_back(i);
    }
    return LessOfTwo(near, [&](int32_t i) { return workers_[i].load; });
  }

  std::tuple<double, int32_t, double> Outstanding(int32_t i) const {
    return {AllQueued(workers_[i]), workers_[i].requests, workers_[i].load};
  }

  std::tuple<int32_t, double> PrefixOrder(int32_t i) const {
    return {-request_.cached[i], workers_[i].load};
  }

  // Of two different ones, drawn, the one of the lesser measure.
  template <typename Measure>
  int32_t LessOfTwo(const std::vector<int32_t>& from, const Measure& measure) const {
    const uint64_t draw = Mix(options_.seed ^ Mix(static_cast<uint64_t>(request_.number)));
    const uint64_t count = from.size();
    if (count == 1) return from[0];
    const uint64_t first = (draw >> 32) % count;
    const uint64_t second = (first + 1 + (draw & 0xffffffff) % (count - 1)) % count;
    return measure(from[second]) < measure(from[first]) ? from[second] : from[first];
  }

  const absl::Span<const WorkerState> workers_;
  const PlacementRequest& request_;
  const PlacementOptions& options_;
  RouteDecision decision_;
  std::vector<int32_t> eligible_;
};

}  // namespace

Status CheckOptions(const PlacementOptions& options) {
  if (!(options.weight >= 1)) return absl::InvalidArgumentError("weight: must be at least 1");
  if (!(options.bound >= 1)) return absl::InvalidArgumentError("bound: must be at least 1");
  if (!(options.slack >= 0)) return absl::InvalidArgumentError("slack: must be at least 0");
  if (!(options.near >= 0)) return absl::InvalidArgumentError("near: must be at least 0");
  return absl::OkStatus();
}

RouteDecision Place(absl::Span<const WorkerState> workers, const PlacementRequest& request,
                    const PlacementOptions& options) {
  return Decider(workers, request, options).Run();
}

std::string_view PolicyName(RoutePolicy policy) {
  return kPolicies[static_cast<size_t>(policy)].name;
}

StatusOr<RoutePolicy> ParsePolicy(std::string_view name) {
  std::string known;
  for (const NamedPolicy& named : kPolicies) {
    if (named.name == name) return named.policy;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", named.name);
  }
  return absl::InvalidArgumentError(fmt::format("'{}' is no policy; there are {}", name, known));
}

absl::Span<const RoutePolicy> AllPolicies() { return kAllPolicies; }

double AddedLoad(const WorkerState& worker, int64_t tokens) {
  return static_cast<double>(tokens) * worker.times.prefill[1] / kLoadWindow;
}

double SlowedBy(const WorkerState& worker, double seconds) {
  if (worker.decodes == 0) return 0;
  const double share = std::min(StepSeconds(worker) / kStepTarget, kMostDecodeShare);
  return seconds * share / (1 - share);
}

}  // namespace kvasir::router
