#include "engine/prompt_lookup.h"

#include <algorithm>

namespace kvasir::engine {

uint64_t PromptLookup::Key(const TokenId* gram) {
  uint64_t key = 0;
  for (int32_t i = 0; i < kGram; ++i) key = key << 21 | static_cast<uint32_t>(gram[i]);
  return key;
}

std::vector<TokenId> PromptLookup::Propose(absl::Span<const TokenId> tokens, int32_t most) {
  const int32_t length = static_cast<int32_t>(tokens.size());
  if (length <= kGram || most <= 0) return {};
  // The last gram is looked up, not entered: it would find itself.
  for (seen_ = std::max(seen_, kGram); seen_ < length; ++seen_) {
    next_[Key(&tokens[seen_ - kGram])] = seen_;
  }
  const auto found = next_.find(Key(&tokens[length - kGram]));
  if (found == next_.end()) return {};
  const absl::Span<const TokenId> followed = tokens.subspan(found->second, most);
  return {followed.begin(), followed.end()};
}

}  // namespace kvasir::engine
