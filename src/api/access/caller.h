// Who sent a request, as its API key tells.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "api/access/budget.h"

namespace kvasir::api {

// Immutable, but for the budget, which is thread-safe.
struct Caller {
  std::string name;  // of the key; never the key
  // The soonest (lowest) that its requests may ask for, and what they get when they do not ask.
  std::optional<int32_t> priority;
  std::string cache_salt;          // mixed into the requests' own; empty: none
  std::shared_ptr<Budget> budget;  // null: no limits
};

}  // namespace kvasir::api
