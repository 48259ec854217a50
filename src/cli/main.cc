#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"

int main(int argc, char** argv) {
  using namespace kvasir;
  CLI::App program("Kvasir serves large language models.", "kvasir");
  program.require_subcommand(1);
  std::vector<std::unique_ptr<cli::Command>> commands;
  commands.push_back(cli::ServeCommand(program));
  commands.push_back(cli::WorkerCommand(program));
  commands.push_back(cli::FrontendCommand(program));
  commands.push_back(cli::ChatCommand(program));
  commands.push_back(cli::BenchCommand(program));
  commands.push_back(cli::RunBatchCommand(program));
  commands.push_back(cli::BuildCommand(program));
  commands.push_back(cli::EvalCommand(program));
  commands.push_back(cli::SimulateCommand(program));
  commands.push_back(cli::PullCommand(program));
  commands.push_back(cli::VersionCommand(program));
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return program.exit(e) == 0 ? 0 : 1;
  }
  for (const auto& command : commands) {
    if (!command->parsed()) continue;
    const StatusOr<int> code = command->Run();
    if (code.ok()) return *code;
    std::fprintf(stderr, "kvasir: %s\n", std::string(code.status().message()).c_str());
    return 1;
  }
  return 1;
}
