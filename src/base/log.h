// Process-wide logging through spdlog (thread-safe); lines go to stderr. Never log a prompt, an
// output, a key or a token.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

#include "base/status.h"

namespace kvasir {

// `level` is trace, debug, info, warn, error or off.
Status InitLog(std::string_view level);

}  // namespace kvasir
