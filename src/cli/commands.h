// The commands of the program. Each adds itself to `program`; main() runs the one that was named.
#pragma once

#include <memory>

#include "cli/command.h"

namespace kvasir::cli {

std::unique_ptr<Command> ServeCommand(CLI::App& program);
std::unique_ptr<Command> WorkerCommand(CLI::App& program);
std::unique_ptr<Command> FrontendCommand(CLI::App& program);
std::unique_ptr<Command> ChatCommand(CLI::App& program);
std::unique_ptr<Command> BenchCommand(CLI::App& program);
std::unique_ptr<Command> RunBatchCommand(CLI::App& program);
std::unique_ptr<Command> BuildCommand(CLI::App& program);
std::unique_ptr<Command> EvalCommand(CLI::App& program);
std::unique_ptr<Command> SimulateCommand(CLI::App& program);
std::unique_ptr<Command> PullCommand(CLI::App& program);
std::unique_ptr<Command> VersionCommand(CLI::App& program);

}  // namespace kvasir::cli
