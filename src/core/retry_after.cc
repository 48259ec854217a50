#include "core/retry_after.h"

#include <absl/strings/cord.h>
#include <absl/strings/numbers.h>
#include <absl/types/optional.h>
#include <fmt/format.h>

#include <string>

namespace kvasir {
namespace {

constexpr absl::string_view kUrl = "kvasir/retry-after";

}  // namespace

std::optional<double> RetryAfterSeconds(const Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kUrl);
  double seconds = 0;
  if (!payload || !absl::SimpleAtod(std::string(*payload), &seconds)) return std::nullopt;
  return seconds;
}

void SetRetryAfter(double seconds, Status& status) {
  status.SetPayload(kUrl, absl::Cord(fmt::format("{:.3f}", seconds)));
}

}  // namespace kvasir
