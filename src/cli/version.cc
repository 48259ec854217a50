#include <cstdio>

#include "cli/commands.h"

namespace kvasir::cli {

std::unique_ptr<Command> VersionCommand(CLI::App& program) {
  return std::make_unique<Command>(program, "version", "Print the version.", []() -> StatusOr<int> {
    std::puts("kvasir " KVASIR_VERSION);
    return 0;
  });
}

}  // namespace kvasir::cli
