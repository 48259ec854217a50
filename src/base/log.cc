#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <string>

namespace kvasir {

Status InitLog(std::string_view level) {
  const std::string name(level);
  const auto parsed = spdlog::level::from_str(name);
  if (parsed == spdlog::level::off && name != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("log level '", name, "': expected trace, debug, info, warn, error or off"));
  }
  if (spdlog::get("kvasir") == nullptr) {
    spdlog::set_default_logger(spdlog::stderr_color_mt("kvasir"));
  }
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  spdlog::set_level(parsed);
  return absl::OkStatus();
}

}  // namespace kvasir
