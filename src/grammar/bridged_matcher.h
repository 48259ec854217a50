// Grammar and Matcher over the bridge's handles.
#pragma once

#include <kvasir_bridge.h>

#include <memory>

#include "grammar/matcher.h"

namespace kvasir::grammar {

struct FreeMatcher {
  void operator()(kvb_matcher* handle) const { kvb_matcher_free(handle); }
};
using BridgeMatcher = std::unique_ptr<kvb_matcher, FreeMatcher>;

// `beginning` is a matcher at the beginning of a grammar over `vocab_size` tokens.
std::shared_ptr<const Grammar> MakeGrammar(BridgeMatcher beginning, int32_t vocab_size);

}  // namespace kvasir::grammar
