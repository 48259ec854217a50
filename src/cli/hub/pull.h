// Pulling a model with a progress bar, for `kvasir pull` and `kvasir serve hf:...`.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/status.h"

namespace kvasir::cli {

// `reference` is OWNER/REPO or OWNER/REPO:FILE. On a terminal, progress is drawn on stderr.
StatusOr<std::filesystem::path> PullModel(std::string_view reference);

}  // namespace kvasir::cli
