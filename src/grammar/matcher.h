// A place in the language of a constraint: which tokens may come next, and which must.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "core/sampling_params.h"

namespace kvasir::grammar {

// One bit a token, the lowest bit of the first word being token 0.
inline size_t MaskWords(int32_t vocab_size) { return (static_cast<size_t>(vocab_size) + 31) / 32; }
inline bool Allows(absl::Span<const uint32_t> mask, TokenId id) {
  return (mask[static_cast<size_t>(id) / 32] >> (id % 32)) & 1;
}

// One thread at a time. An error (the work exceeds its limit, or a token that the mask forbids)
// leaves the matcher unusable: every later call returns it again.
class Matcher {
 public:
  virtual ~Matcher() = default;

  virtual std::unique_ptr<Matcher> Clone() const = 0;

  // The canonical tokens of the bytes that must come next, as far as no other tokenization of what
  // may follow them is possible. Empty where the model has a choice.
  virtual StatusOr<std::vector<TokenId>> Forced() = 0;

  // Sets the bits of the tokens that may come next and clears all others; `mask` has
  // MaskWords(vocab_size) words. An end token is allowed exactly where the output may end; once
  // ended(), only end tokens are. At least one bit is set.
  virtual Status FillMask(absl::Span<uint32_t> mask) = 0;

  // Takes a token that the mask allows, or one of Forced().
  virtual Status Consume(TokenId id) = 0;

  // Takes back the last `tokens` consumed ones.
  virtual Status Rollback(int32_t tokens) = 0;

  // Nothing but an end token can follow.
  virtual bool ended() const = 0;
};

// A compiled constraint. Immutable and thread-safe.
class Grammar {
 public:
  virtual ~Grammar() = default;
  virtual std::unique_ptr<Matcher> NewMatcher() const = 0;  // at the beginning
};

}  // namespace kvasir::grammar
