// From the many ways in which clients write a constraint to the form that engines compile.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "core/constraint.h"

namespace kvasir::api {

struct ConstraintSpelling {
  enum class Kind {
    kJsonSchema,  // text is a schema
    kJsonObject,  // any JSON object
    kRegex,       // text is a regular expression
    kChoice,      // one of `choices`, which are at least one
    kGrammar,     // text is a grammar
  };
  Kind kind = Kind::kJsonObject;
  std::string text;
  std::vector<std::string> choices;
};

// InvalidArgument for a grammar that can't be converted.
StatusOr<Constraint> ToConstraint(const ConstraintSpelling& spelling);

}  // namespace kvasir::api
