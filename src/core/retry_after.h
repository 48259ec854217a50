// When a refused request may be tried again, as part of the refusal's status.
#pragma once

#include <optional>

#include "base/status.h"

namespace kvasir {

// Seconds from now, if the status says.
std::optional<double> RetryAfterSeconds(const Status& status);
void SetRetryAfter(double seconds, Status& status);

}  // namespace kvasir
