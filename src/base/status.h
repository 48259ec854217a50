// Errors are values: absl::Status and absl::StatusOr, under one spelling, and the two macros that
// hand an error on.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>

#include <utility>

namespace kvasir {

using absl::Status;
using absl::StatusOr;

}  // namespace kvasir

#define KVASIR_CONCAT_INNER(a, b) a##b
#define KVASIR_CONCAT(a, b) KVASIR_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr`, a Status, is an error.
#define KVASIR_RETURN_IF_ERROR(expr)               \
  do {                                             \
    ::absl::Status kvasir_status = (expr);         \
    if (!kvasir_status.ok()) return kvasir_status; \
  } while (false)

// Declares or assigns `lhs` from `expr`, a StatusOr, or returns its error.
#define KVASIR_ASSIGN_OR_RETURN(lhs, expr) \
  KVASIR_ASSIGN_OR_RETURN_IMPL(KVASIR_CONCAT(kvasir_statusor_, __LINE__), lhs, expr)
#define KVASIR_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return std::move(tmp).status();     \
  lhs = std::move(tmp).value()
