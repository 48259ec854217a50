// `kvasir worker`: a model and its engine, for frontends in other processes.
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/kv_events.h"
#include "cli/model_config.h"
#include "cli/signals.h"
#include "cli/worker_process.h"
#include "cluster/engine_service.h"

namespace kvasir::cli {
namespace {

struct WorkerConfig {
  ModelConfig model;
  KvEventsConfig kv_events;
  std::string listen = "127.0.0.1:8100";
  bool allow_remote = false;
  std::string log_level = "info";
};

// A worker of a process that is gone has nobody to serve.
Status DieWithParent() {
  const char* const parent = std::getenv(kParentVariable);
  if (parent == nullptr) return absl::OkStatus();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (fmt::format("{}", getppid()) == parent) return absl::OkStatus();
  return absl::CancelledError("the process that started this worker is gone");
}

bool IsLoopback(const std::string& address) {
  return address.starts_with("127.") || address.starts_with("localhost:") ||
         address.starts_with("[::1]:") || address.starts_with("unix:");
}

StatusOr<int> Work(const WorkerConfig& config) {
  KVASIR_RETURN_IF_ERROR(InitLog(config.log_level));
  KVASIR_RETURN_IF_ERROR(DieWithParent());
  if (!IsLoopback(config.listen) && !config.allow_remote) {
    return absl::InvalidArgumentError(
        fmt::format("listen: {} is no loopback address; requests come unencrypted and from anyone, "
                    "so this takes --allow-remote",
                    config.listen));
  }
  StopSignal stop(false);
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<cluster::KvEventPublisher> kv_events,
                          StartKvEvents(config.kv_events));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<RunningModel> model,
                          StartModel(
                              config.model, [&](const Status&) { stop.Raise(); },
                              kv_events ? &kv_events->listener() : nullptr));
  KVASIR_ASSIGN_OR_RETURN(
      const std::unique_ptr<cluster::EngineServer> server,
      cluster::EngineServer::Start(*model->engine, model->clock, {.address = config.listen}));
  const std::string host = config.listen.substr(0, config.listen.rfind(':'));
  fmt::print("Kvasir worker serves {} on {}:{}\n", model->engine->Model().name, host,
             server->port());
  std::fflush(stdout);
  stop.Wait([] {});
  spdlog::info("shutting down");
  server->Stop();
  KVASIR_RETURN_IF_ERROR(model->engine->Drain(Duration::zero()));
  return 0;
}

}  // namespace

std::unique_ptr<Command> WorkerCommand(CLI::App& program) {
  auto config = std::make_shared<WorkerConfig>();
  auto command =
      std::make_unique<Command>(program, "worker", "Run a model for frontends in other processes.",
                                [config] { return Work(*config); });
  command->AddPositional("model", &config->model.model, kModelHelp);
  AddModelOptions(*command, &config->model);
  command->Add("listen", &config->listen, "HOST:PORT to listen on (port 0: any free one)");
  command->AddSwitch("allow-remote", &config->allow_remote,
                     "Listen on an address that other machines reach, without encryption");
  AddKvEventsOptions(*command, &config->kv_events);
  command->Add("log-level", &config->log_level, "trace, debug, info, warn, error or off");
  command->AddConfigFile();
  return command;
}

}  // namespace kvasir::cli
