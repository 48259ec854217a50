#include "cli/cache_dir.h"

#include <cstdlib>
#include <string>

namespace kvasir::cli {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::filesystem::path CacheDir() {
  if (const std::string own = Environment("KVASIR_CACHE"); !own.empty()) return own;
  if (const std::string xdg = Environment("XDG_CACHE_HOME"); !xdg.empty()) {
    return std::filesystem::path(xdg) / "kvasir";
  }
  return std::filesystem::path(Environment("HOME")) / ".cache" / "kvasir";
}

std::filesystem::path DefaultModelPath() {
  return CacheDir() / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
}

}  // namespace kvasir::cli
