#include "api/generate/constraint.h"

#include "api/generate/lark.h"

namespace kvasir::api {
namespace {

std::string ChoiceGrammar(const std::vector<std::string>& choices) {
  std::string grammar = "start:";
  for (size_t i = 0; i < choices.size(); ++i) {
    grammar += i == 0 ? " " : " | ";
    grammar += LarkString(choices[i]);
  }
  return grammar;
}

}  // namespace

StatusOr<Constraint> ToConstraint(const ConstraintSpelling& spelling) {
  using Kind = ConstraintSpelling::Kind;
  switch (spelling.kind) {
    case Kind::kJsonSchema:
      return Constraint{Constraint::Kind::kJsonSchema, spelling.text};
    case Kind::kJsonObject:
      return Constraint{Constraint::Kind::kJsonSchema, R"({"type":"object"})"};
    case Kind::kRegex:
      return Constraint{Constraint::Kind::kRegex, spelling.text};
    case Kind::kChoice:
      return Constraint{Constraint::Kind::kLark, ChoiceGrammar(spelling.choices)};
    case Kind::kGrammar:
      return Constraint{Constraint::Kind::kLark, spelling.text};
  }
  return absl::InternalError("unknown kind of constraint");
}

}  // namespace kvasir::api
