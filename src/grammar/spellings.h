// The API's spellings of a constraint. Pure functions.
#pragma once

#include <absl/types/span.h>

#include <string>
#include <string_view>

#include "base/status.h"
#include "core/constraint.h"

namespace kvasir::grammar {

// Any JSON object.
Constraint AnyJsonObject();

// One of the texts. InvalidArgument when there is none, or one is no UTF-8.
StatusOr<Constraint> OneOf(absl::Span<const std::string> choices);

// A grammar: EBNF (ebnf.h) where the text holds `::=`, otherwise Lark. An error in EBNF names line
// and column; Lark is not looked at.
StatusOr<Constraint> FromGrammar(std::string_view text);

// A JSON schema as an item of a Lark grammar, with the spaces that kJsonSchema gives JSON unless
// its own x-guidance says otherwise. InvalidArgument when it is no JSON object.
StatusOr<std::string> SchemaInLark(std::string_view schema);

}  // namespace kvasir::grammar
