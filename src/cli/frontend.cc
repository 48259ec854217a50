// `kvasir frontend`: the HTTP server over workers in other processes.
#include <utility>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/serve_fleet.h"

namespace kvasir::cli {
namespace {

struct FrontendConfig {
  ServeConfig serve;
  std::vector<std::string> workers;
  double worker_timeout = 120;  // s
};

StatusOr<int> ServeFrontend(const FrontendConfig& config) {
  KVASIR_RETURN_IF_ERROR(InitLog(config.serve.log_level));
  if (config.workers.empty()) {
    return absl::InvalidArgumentError("worker: name the HOST:PORT of at least one");
  }
  KVASIR_ASSIGN_OR_RETURN(api::ApiOptions api_options, MakeApiOptions(config.serve));
  StopSignal stop(Reloads(config.serve));
  KVASIR_ASSIGN_OR_RETURN(const ServedModel text, LoadModelText(config.serve.model));
  KVASIR_RETURN_IF_ERROR(ServeOverWorkers(config.serve, text, config.workers,
                                          std::move(api_options),
                                          FromSeconds(config.worker_timeout), stop));
  return 0;
}

}  // namespace

std::unique_ptr<Command> FrontendCommand(CLI::App& program) {
  auto config = std::make_shared<FrontendConfig>();
  auto command = std::make_unique<Command>(program, "frontend",
                                           "Serve over HTTP what workers in other processes run.",
                                           [config] { return ServeFrontend(*config); });
  command->AddPositional("model", &config->serve.model.model, kModelHelp);
  AddModelOptions(*command, &config->serve.model);
  AddHttpOptions(*command, &config->serve);
  command->Add("worker", &config->workers, "HOST:PORT of a worker; may be repeated");
  command
      ->Add("worker-timeout", &config->worker_timeout,
            "Seconds in which one of the workers must answer")
      ->check(CLI::Range(0.1, 1e6));
  command->AddConfigFile();
  return command;
}

}  // namespace kvasir::cli
