// One choice's place in its constraint, as sampling sees it: for each output position either the
// one token that must come, or the tokens that may.
//
// The tokens that must come are fixed when a place is reached and handed out one by one, so that
// they are the same whether a caller takes them one a step or all at once. A cursor is a function
// of its grammar and the tokens taken: replaying them elsewhere gives the same one.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/status.h"
#include "core/sampling_params.h"
#include "grammar/matcher.h"

namespace kvasir::grammar {

// What decides a position besides the logits.
struct Guide {
  std::optional<TokenId> forced;  // the token, whatever the logits say
  std::vector<uint32_t> mask;     // else: the tokens that may be chosen
};

// One thread at a time.
class Cursor {
 public:
  // At the beginning of the output. `end_ids` are the model's end tokens, at least one; the first
  // follows an output that nothing can continue.
  static StatusOr<std::unique_ptr<Cursor>> Create(std::shared_ptr<const Grammar> grammar,
                                                  int32_t vocab_size, std::vector<TokenId> end_ids);

  std::unique_ptr<Cursor> Clone() const;

  // The tokens that must come next, perhaps none.
  const std::deque<TokenId>& forced() const { return forced_; }

  StatusOr<Guide> NextGuide();

  // Takes the next token: one that the guide allows.
  Status Advance(TokenId token);

  // The guides of this position and of those after each of `drafts`, up to the first draft that
  // its guide rules out. The place stays.
  StatusOr<std::vector<Guide>> GuideDrafts(absl::Span<const TokenId> drafts);

  // An end token has been taken.
  bool ended() const { return ended_; }

 private:
  Cursor(std::shared_ptr<const Grammar> grammar, int32_t vocab_size, std::vector<TokenId> end_ids);
  Cursor(const Cursor& other);

  Status FindForced();

  const std::shared_ptr<const Grammar> grammar_;
  const int32_t vocab_size_;
  const std::vector<TokenId> end_ids_;
  std::unique_ptr<Matcher> matcher_;
  std::deque<TokenId> forced_;
  bool ended_ = false;
};

}  // namespace kvasir::grammar
