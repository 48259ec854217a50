#include <cstdio>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/hub/pull.h"

namespace kvasir::cli {
namespace {

struct PullConfig {
  std::string model;
  std::string log_level = "info";
};

StatusOr<int> Pull(const PullConfig& config) {
  KVASIR_RETURN_IF_ERROR(InitLog(config.log_level));
  KVASIR_ASSIGN_OR_RETURN(const std::filesystem::path path, PullModel(config.model));
  std::puts(path.c_str());
  return 0;
}

}  // namespace

std::unique_ptr<Command> PullCommand(CLI::App& program) {
  auto config = std::make_shared<PullConfig>();
  auto command = std::make_unique<Command>(
      program, "pull", "Fetch a model from a hub (HF_ENDPOINT, HF_TOKEN) and print where it lies.",
      [config] { return Pull(*config); });
  command->AddPositional("model", &config->model, "OWNER/REPO or OWNER/REPO:FILE")->required();
  command->Add("log-level", &config->log_level, "trace, debug, info, warn, error or off");
  return command;
}

}  // namespace kvasir::cli
