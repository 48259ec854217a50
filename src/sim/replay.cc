#include "sim/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "router/fleet_view.h"
#include "sim/block_holders.h"
#include "sim/sim_worker.h"

namespace kvasir::sim {
namespace {

// What a worker sends to a frontend.
struct Message {
  TimePoint due;
  int32_t worker = 0;
  std::vector<BlockEvent> events;
  std::optional<router::WorkerState> report;
  int64_t included = 0;  // with a report
};

struct Frontend {
  explicit Frontend(int32_t workers) : view(workers), placed(workers, 0) {}

  BlockHolders holders;
  router::FleetView view;
  std::vector<int64_t> placed;  // on each worker
  std::deque<Message> inbox;    // in the order of their due times
  router::PlacementOptions placement;
  int64_t placements = 0;
  int64_t outputs = 0;  // tokens, of all placements

  // What an output will be it cannot know: as long as those before it.
  int64_t ExpectedOutput() const { return placements == 0 ? 0 : outputs / placements; }
};

Status Check(const ReplayOptions& options) {
  if (options.workers < 1 || options.workers > kMaxWorkers) {
    return absl::InvalidArgumentError(fmt::format("workers: must be from 1 to {}", kMaxWorkers));
  }
  if (options.blocks < 1) return absl::InvalidArgumentError("blocks: must be at least 1");
  if (options.frontends < 1) return absl::InvalidArgumentError("frontends: must be at least 1");
  if (!(options.report_interval >= 1e-3 && options.report_interval <= 1e6)) {
    return absl::InvalidArgumentError("report interval: must be from a millisecond to 1e6 seconds");
  }
  if (!(options.delay >= 0 && options.delay <= 1e6)) {
    return absl::InvalidArgumentError("delay: must be from 0 to 1e6 seconds");
  }
  if (!(options.lose_events >= 0 && options.lose_events <= 1)) {
    return absl::InvalidArgumentError("lost events: must be a share from 0 to 1");
  }
  return router::CheckOptions(options.placement);
}

class Simulation {
 public:
  Simulation(const Trace& trace, const ReplayOptions& options, const Clock& clock)
      : trace_(trace),
        options_(options),
        clock_(clock),
        random_(options.placement.seed),
        believed_(options.workers, 0),
        next_report_(trace.requests.front().arrival) {
    for (int32_t w = 0; w < options.workers; ++w) {
      workers_.push_back(
          std::make_unique<SimWorker>(options.blocks, trace.block_tokens, options.times));
    }
    for (int32_t f = 0; f < options.frontends; ++f) {
      frontends_.emplace_back(options.workers);
      frontends_.back().placement = options.placement;
      frontends_.back().placement.seed += static_cast<uint64_t>(f);
      for (int32_t w = 0; w < options.workers; ++w) {
        frontends_.back().view.Report(w, workers_[w]->State(next_report_), 0, next_report_);
      }
    }
    result_.policy = options.placement.policy;
    result_.work_blocks.resize(options.workers);
    result_.work_seconds.resize(options.workers);
  }

  ReplayResult Run(const Progress& progress) {
    const auto total = static_cast<int64_t>(trace_.requests.size());
    for (const TraceRequest& request : trace_.requests) {
      SendReportsUntil(request.arrival);
      Frontend& frontend = frontends_[result_.requests % options_.frontends];
      Deliver(request.arrival, &frontend);
      Handle(request, &frontend);
      progress(++result_.requests, total);
    }
    std::sort(result_.ttft.begin(), result_.ttft.end());
    std::sort(result_.decision_time.begin(), result_.decision_time.end());
    return std::move(result_);
  }

 private:
  // Those that a later one replaces before anyone decides are left out.
  void SendReportsUntil(TimePoint now) {
    const Duration interval = FromSeconds(options_.report_interval);
    const Duration waited = now - FromSeconds(options_.delay) - next_report_;
    next_report_ += std::max(waited / interval, Duration::rep{0}) * interval;
    for (; next_report_ <= now; next_report_ += interval) SendReports(next_report_);
  }

  void SendReports(TimePoint now) {
    for (int32_t w = 0; w < options_.workers; ++w) {
      const router::WorkerState state = workers_[w]->State(now);
      for (Frontend& frontend : frontends_) {
        Send({.worker = w, .report = state, .included = frontend.placed[w]}, now, &frontend);
      }
    }
  }

  void Send(Message message, TimePoint now, Frontend* to) const {
    message.due = now + FromSeconds(options_.delay);
    to->inbox.push_back(std::move(message));
  }

  static void Deliver(TimePoint now, Frontend* frontend) {
    while (!frontend->inbox.empty() && frontend->inbox.front().due <= now) {
      Message& message = frontend->inbox.front();
      for (const BlockEvent& event : message.events) {
        if (event.stored) {
          frontend->holders.Store(message.worker, event.blocks);
        } else {
          frontend->holders.Remove(message.worker, event.blocks);
        }
      }
      if (message.report) {
        frontend->view.Report(message.worker, *std::move(message.report), message.included,
                              message.due);
      }
      frontend->inbox.pop_front();
    }
  }

  void Handle(const TraceRequest& request, Frontend* frontend) {
    const TimePoint begin = clock_.Now();
    frontend->holders.Match(request.blocks, absl::MakeSpan(believed_));
    const router::PlacementRequest placement{.number = frontend->placements,
                                             .prompt_tokens = request.input_tokens,
                                             .block_tokens = trace_.block_tokens,
                                             .expected_output = frontend->ExpectedOutput(),
                                             .cached = believed_};
    const RouteDecision decision =
        Place(frontend->view.At(request.arrival), placement, frontend->placement);
    result_.decision_time.push_back(ToSeconds(clock_.Now() - begin));
    if (decision.worker == RouteDecision::kNoWorker) {
      ++result_.refused;
      return;
    }
    ++frontend->placements;
    frontend->outputs += request.output_tokens;
    ++frontend->placed[decision.worker];
    frontend->view.Placed(placement, decision, request.arrival);
    // The worker will hold them: it need not say so first.
    frontend->holders.Store(decision.worker, request.blocks);
    result_.believed_blocks += decision.chosen().cached_blocks;
    Serve(request, decision.worker);
  }

  void Serve(const TraceRequest& request, int32_t worker) {
    const SimWorker::Served served = workers_[worker]->Serve(request, request.arrival);
    const auto blocks = static_cast<int64_t>(request.blocks.size());
    result_.blocks += blocks;
    result_.hit_blocks += served.cached_blocks;
    result_.tokens += request.input_tokens;
    result_.hit_tokens +=
        std::min(int64_t{served.cached_blocks} * trace_.block_tokens, request.input_tokens);
    result_.work_blocks[worker] += blocks - served.cached_blocks;
    result_.work_seconds[worker] += served.prefill_seconds;
    result_.ttft.push_back(served.ttft);
    SendEvents(worker, request.arrival);
  }

  void SendEvents(int32_t worker, TimePoint now) {
    const std::vector<BlockEvent> events = workers_[worker]->TakeEvents();
    std::bernoulli_distribution lost(options_.lose_events);
    for (Frontend& frontend : frontends_) {
      Message message{.worker = worker};
      for (const BlockEvent& event : events) {
        if (!lost(random_)) message.events.push_back(event);
      }
      result_.events += static_cast<int64_t>(events.size());
      result_.lost_events += static_cast<int64_t>(events.size() - message.events.size());
      Send(std::move(message), now, &frontend);
    }
  }

  const Trace& trace_;
  const ReplayOptions& options_;
  const Clock& clock_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::vector<Frontend> frontends_;
  std::vector<int32_t> believed_;
  TimePoint next_report_;
  ReplayResult result_;
};

}  // namespace

StatusOr<ReplayResult> Replay(const Trace& trace, const ReplayOptions& options, const Clock& clock,
                              const Progress& progress) {
  KVASIR_RETURN_IF_ERROR(Check(options));
  return Simulation(trace, options, clock).Run(progress);
}

}  // namespace kvasir::sim
