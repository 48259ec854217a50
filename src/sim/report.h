// What replays have shown, as a table and as JSON.
#pragma once

#include <absl/types/span.h>

#include <nlohmann/json.hpp>
#include <string>

#include "sim/replay.h"

namespace kvasir::sim {

// The least of the sorted values that `percent` of them do not exceed; 0 for no values.
double Percentile(absl::Span<const double> sorted, double percent);

// The largest over the mean; 1 where nothing was done.
double MaxOverMean(absl::Span<const int64_t> work);
double MaxOverMean(absl::Span<const double> work);

std::string FormatTable(absl::Span<const ReplayResult> results);

nlohmann::json ToJson(const ReplayOptions& options, absl::Span<const ReplayResult> results);

}  // namespace kvasir::sim
