#include "grammar/cursor.h"

#include <algorithm>
#include <utility>

namespace kvasir::grammar {

StatusOr<std::unique_ptr<Cursor>> Cursor::Create(std::shared_ptr<const Grammar> grammar,
                                                 int32_t vocab_size, std::vector<TokenId> end_ids) {
  std::unique_ptr<Cursor> cursor(new Cursor(std::move(grammar), vocab_size, std::move(end_ids)));
  KVASIR_RETURN_IF_ERROR(cursor->FindForced());
  return cursor;
}

Cursor::Cursor(std::shared_ptr<const Grammar> grammar, int32_t vocab_size,
               std::vector<TokenId> end_ids)
    : grammar_(std::move(grammar)),
      vocab_size_(vocab_size),
      end_ids_(std::move(end_ids)),
      matcher_(grammar_->NewMatcher()) {}

Cursor::Cursor(const Cursor& other)
    : grammar_(other.grammar_),
      vocab_size_(other.vocab_size_),
      end_ids_(other.end_ids_),
      matcher_(other.matcher_->Clone()),
      forced_(other.forced_),
      ended_(other.ended_) {}

std::unique_ptr<Cursor> Cursor::Clone() const { return std::unique_ptr<Cursor>(new Cursor(*this)); }

Status Cursor::FindForced() {
  if (matcher_->ended()) {
    forced_ = {end_ids_.front()};
    return absl::OkStatus();
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<TokenId> forced, matcher_->Forced());
  forced_.assign(forced.begin(), forced.end());
  return absl::OkStatus();
}

StatusOr<Guide> Cursor::NextGuide() {
  Guide guide;
  if (!forced_.empty()) {
    guide.forced = forced_.front();
    return guide;
  }
  guide.mask.resize(MaskWords(vocab_size_));
  KVASIR_RETURN_IF_ERROR(matcher_->FillMask(absl::MakeSpan(guide.mask)));
  return guide;
}

Status Cursor::Advance(TokenId token) {
  if (ended_) return absl::InternalError("constraint: the output has ended already");
  if (!forced_.empty() && forced_.front() != token) {
    return absl::InternalError("constraint: another token than the forced one was taken");
  }
  if (std::find(end_ids_.begin(), end_ids_.end(), token) != end_ids_.end()) {
    ended_ = true;
    forced_.clear();
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(matcher_->Consume(token));
  if (!forced_.empty()) forced_.pop_front();
  return forced_.empty() ? FindForced() : absl::OkStatus();
}

StatusOr<std::vector<Guide>> Cursor::GuideDrafts(absl::Span<const TokenId> drafts) {
  std::vector<Guide> guides(1);
  KVASIR_ASSIGN_OR_RETURN(guides[0], NextGuide());
  if (drafts.empty()) return guides;
  const std::unique_ptr<Cursor> ahead = Clone();
  for (const TokenId draft : drafts) {
    const Guide& guide = guides.back();
    const bool fits = guide.forced ? *guide.forced == draft : Allows(guide.mask, draft);
    if (!fits) break;
    KVASIR_RETURN_IF_ERROR(ahead->Advance(draft));
    if (ahead->ended()) break;
    KVASIR_ASSIGN_OR_RETURN(guides.emplace_back(), ahead->NextGuide());
  }
  return guides;
}

}  // namespace kvasir::grammar
