// `kvasir simulate`: replays a trace of requests through the router and simulated workers.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/progress_bar.h"
#include "sim/report.h"

namespace kvasir::cli {
namespace {

struct SimulateConfig {
  std::string trace;
  int32_t block_tokens = 512;
  std::vector<std::string> policies = {"least-time"};
  double speed = 1;
  double delay_ms = 0;
  double report_ms = 0;
  bool json = false;
  sim::ReplayOptions replay;
};

StatusOr<std::vector<RoutePolicy>> Policies(const std::vector<std::string>& names) {
  std::vector<RoutePolicy> policies;
  for (const std::string& name : names) {
    if (name == "all") {
      const absl::Span<const RoutePolicy> all = router::AllPolicies();
      policies.insert(policies.end(), all.begin(), all.end());
      continue;
    }
    const StatusOr<RoutePolicy> policy = router::ParsePolicy(name);
    if (!policy.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("policy: {}, or all", std::string(policy.status().message())));
    }
    policies.push_back(*policy);
  }
  return policies;
}

StatusOr<sim::ReplayOptions> Options(const SimulateConfig& config) {
  sim::ReplayOptions options = config.replay;
  if (!(config.speed >= 1e-6 && config.speed <= 1e6)) {
    return absl::InvalidArgumentError("speed: must be from 1e-6 to 1e6");
  }
  for (auto* coefficients : {&options.times.decode, &options.times.prefill}) {
    for (double& seconds : *coefficients) seconds /= config.speed;
  }
  options.delay = config.delay_ms / 1000;
  options.report_interval = config.report_ms / 1000;
  return options;
}

StatusOr<int> Simulate(const SimulateConfig& config) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<RoutePolicy> policies, Policies(config.policies));
  KVASIR_ASSIGN_OR_RETURN(sim::ReplayOptions options, Options(config));
  if (config.block_tokens < 1) {
    return absl::InvalidArgumentError("block-tokens: must be at least 1");
  }
  KVASIR_ASSIGN_OR_RETURN(const sim::Trace trace,
                          sim::ReadTrace(config.trace, config.block_tokens));
  const SteadyClock clock;
  ProgressBar bar(ProgressBar::Unit::kSteps);
  std::vector<sim::ReplayResult> results;
  for (RoutePolicy policy : policies) {
    options.placement.policy = policy;
    const std::string name(router::PolicyName(policy));
    KVASIR_ASSIGN_OR_RETURN(sim::ReplayResult result,
                            sim::Replay(trace, options, clock, [&](int64_t done, int64_t total) {
                              bar.Show(name, done, total);
                            }));
    results.push_back(std::move(result));
  }
  const std::string text =
      config.json ? sim::ToJson(options, results).dump() + "\n" : sim::FormatTable(results);
  std::fputs(text.c_str(), stdout);
  return 0;
}

void AddFleetOptions(Command& command, SimulateConfig* config) {
  command.Add("workers", &config->replay.workers, "Workers");
  command.Add("blocks", &config->replay.blocks, "Blocks of each worker's cache");
  command.Add("block-tokens", &config->block_tokens, "Tokens of a block of the trace");
  command.Add("speed", &config->speed,
              "How many times as fast workers are as OPT-13B on four A100 (DistServe's profile)");
  command.Add("frontends", &config->replay.frontends, "Frontends, which take requests in turn");
  command.Add("report-ms", &config->report_ms, "Milliseconds between the reports of a worker");
  command.Add("delay-ms", &config->delay_ms, "Milliseconds that reports and KV events take");
  command.Add("lose-events", &config->replay.lose_events,
              "Share of the KV events that are silently lost");
}

void AddPolicyOptions(Command& command, SimulateConfig* config) {
  router::PlacementOptions& placement = config->replay.placement;
  command.Add("policy", &config->policies,
              "least-time, round-robin, least-loaded, power-of-two, prefix-only or all; several "
              "times for several");
  command.Add("weight", &placement.weight, "Least time: how many times a second of prefill counts");
  command.Add("bound", &placement.bound, "Least time: most load of a worker, in means");
  command.Add("slack", &placement.slack, "and besides, in seconds of prefill a second");
  command.Add("near", &placement.near, "Least time: share of a TTFT that makes no difference");
  command.Add("seed", &placement.seed, "Of the choices among equals, and of what is lost");
}

}  // namespace

std::unique_ptr<Command> SimulateCommand(CLI::App& program) {
  auto config = std::make_shared<SimulateConfig>();
  config->delay_ms = config->replay.delay * 1000;
  config->report_ms = config->replay.report_interval * 1000;
  auto command = std::make_unique<Command>(
      program, "simulate",
      "Replay a trace through the router and simulated workers: hits, balance and latency.",
      [config] { return Simulate(*config); });
  command->Add("trace", &config->trace, "Trace in Mooncake's format: a JSON object a line")
      ->required();
  AddFleetOptions(*command, config.get());
  AddPolicyOptions(*command, config.get());
  command->AddSwitch("json", &config->json, "Print the figures as a line of JSON");
  command->AddConfigFile();
  return command;
}

}  // namespace kvasir::cli
