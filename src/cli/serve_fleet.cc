#include "cli/serve_fleet.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/log.h"
#include "cli/model_config.h"
#include "cli/worker_process.h"
#include "cluster/fleet.h"
#include "cluster/remote_engine.h"

namespace kvasir::cli {
namespace {

// To load a model that is compiled already: what a worker of one's own has to do.
constexpr std::chrono::seconds kStartPatience{120};
// A request that has lost its worker waits so long for another.
constexpr std::chrono::seconds kMovePatience{60};
constexpr std::chrono::milliseconds kLookInterval{100};

// Waits for whichever worker answers first; the others may come later.
StatusOr<const cluster::RemoteEngine*> AwaitAny(
    const std::vector<std::unique_ptr<cluster::RemoteEngine>>& workers, Duration patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  Status status = absl::UnavailableError("there are no workers");
  do {
    for (const auto& worker : workers) {
      status = worker->AwaitWorker(kLookInterval);
      if (status.ok()) return worker.get();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return status;
}

std::string FrontendName() {
  char host[256] = "frontend";
  gethostname(host, sizeof(host) - 1);
  return fmt::format("{}:{}", host, getpid());
}

}  // namespace

Status ServeOverWorkers(const ServeConfig& config, const ServedModel& text,
                        const std::vector<std::string>& addresses, api::ApiOptions api_options,
                        Duration patience, StopSignal& stop) {
  const SteadyClock clock;
  std::vector<std::unique_ptr<cluster::RemoteEngine>> workers;
  std::vector<cluster::Fleet::Member> members;
  for (const std::string& address : addresses) {
    workers.push_back(std::make_unique<cluster::RemoteEngine>(
        cluster::RemoteEngineOptions{.address = address, .frontend = FrontendName()}, clock));
    members.push_back({"worker " + address, workers.back().get()});
  }
  KVASIR_ASSIGN_OR_RETURN(const cluster::RemoteEngine* first, AwaitAny(workers, patience));
  ModelInfo model = first->Model();
  if (model.weights_fingerprint != text.info.weights_fingerprint) {
    return absl::FailedPreconditionError(fmt::format(
        "the workers serve {} with weights {}, this frontend was given {} with {}", model.name,
        model.weights_fingerprint, text.info.name, text.info.weights_fingerprint));
  }
  model.name = text.info.name;
  cluster::Fleet fleet(std::move(members), std::move(model), kMovePatience);
  return ServeUntil(stop, fleet, TextOf(text), std::move(api_options),
                    FromSeconds(config.drain_timeout));
}

Status ServeWithProcesses(const ServeConfig& config, std::vector<std::string> model_options,
                          api::ApiOptions api_options, StopSignal& stop) {
  if (config.model.threads == 0) {
    const int share = std::max(1, ComputeThreads(0) / config.workers);
    model_options.push_back(fmt::format("--threads={}", share));
  }
  // First, so that the model is in the cache when the workers look for it.
  KVASIR_ASSIGN_OR_RETURN(const ServedModel text, LoadModelText(config.model));
  std::vector<std::unique_ptr<WorkerProcess>> processes;
  std::vector<std::string> addresses;
  for (int32_t i = 0; i < config.workers; ++i) {
    processes.push_back(std::make_unique<WorkerProcess>(config.model.model, model_options));
  }
  for (const auto& process : processes) {
    KVASIR_ASSIGN_OR_RETURN(std::string address, process->AwaitAddress(kStartPatience));
    addresses.push_back(std::move(address));
  }
  return ServeOverWorkers(config, text, addresses, std::move(api_options), kStartPatience, stop);
}

}  // namespace kvasir::cli
