// What the whole output of a chat answer must match: reasoning, content and tool calls, each as the
// model writes it.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "api/protocol/tools.h"
#include "core/constraint.h"
#include "core/sampling_params.h"
#include "text/output_format.h"

namespace kvasir::api {

struct OutputRules {
  text::OutputFormat format;
  // Where the prompt left off: the rules are for what comes after it.
  text::ReasoningState reasoning = text::ReasoningState::kNotBegun;
  ToolOptions tools;
  std::optional<Constraint> content;  // where the answer is no call
};

// The control token that a text is in the vocabulary, if it is one: grammars must name those by id.
using ControlTokenOf = std::function<std::optional<TokenId>(std::string_view)>;

// Nothing where any output will do. Otherwise
//  - reasoning is free, and optional unless the prompt opened it;
//  - required or named calls make up all the rest, with arguments that match their schemas;
//  - with auto, the rest is calls, content, or free text with calls in it; that needs a constraint
//    where content has one, where a tool is strict, and where only one call is allowed (a format
//    without a marker can't tell a call from constrained content: then all is content);
//  - without tools, the rest matches `content`.
// A required call needs a format other than kNone.
std::optional<Constraint> OutputConstraint(const OutputRules& rules,
                                           const ControlTokenOf& control_token_of);

}  // namespace kvasir::api
