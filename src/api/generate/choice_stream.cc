#include "api/generate/choice_stream.h"

#include <algorithm>
#include <iterator>

namespace kvasir::api {

void ChoiceDelta::Append(ChoiceDelta next) {
  text += next.text;
  std::move(next.tokens.begin(), next.tokens.end(), std::back_inserter(tokens));
  if (!next.finish_reason.empty()) {
    finish_reason = std::move(next.finish_reason);
    stop_reason = std::move(next.stop_reason);
  }
}

ChoiceStream::ChoiceStream(const ChoiceOptions& options)
    : options_(options), stop_matcher_(options.stop, options.include_stop) {
  if (options.tokenizer != nullptr) {
    detokenizer_ = std::make_unique<text::Detokenizer>(
        *options.tokenizer, options.skip_special_tokens, options.continues_prompt);
  }
}

void ChoiceStream::AddText(std::string_view piece, ChoiceDelta* delta) {
  if (tokens_ <= options_.min_tokens) {
    delta->text += piece;
    return;
  }
  text::StopMatcher::Result result = stop_matcher_.Add(piece);
  delta->text += result.text;
  if (!result.match) return;
  delta->finish_reason = "stop";
  delta->stop_reason = *std::move(result.match);
  finished_ = true;
}

void ChoiceStream::Finish(const TokenEvent& event, ChoiceDelta* delta) {
  if (detokenizer_ != nullptr) {
    AddText(detokenizer_->Flush(), delta);
    if (finished_) return;  // a stop string ended in the very last characters
    delta->text += stop_matcher_.Flush();
  }
  finished_ = true;
  delta->finish_reason = event.finish == FinishReason::kLength ? "length" : "stop";
  if (event.finish != FinishReason::kStop || event.tokens.empty()) return;
  const TokenId last = event.tokens.back().id;
  const auto& ids = options_.stop_token_ids;
  if (std::find(ids.begin(), ids.end(), last) != ids.end()) delta->stop_reason = last;
}

ChoiceDelta ChoiceStream::Add(const TokenEvent& event) {
  ChoiceDelta delta;
  if (finished_) return delta;
  for (size_t i = 0; i < event.tokens.size(); ++i) {
    const TokenOut& token = event.tokens[i];
    delta.tokens.push_back(token);
    ++tokens_;
    const bool end_token = event.finish == FinishReason::kStop && i + 1 == event.tokens.size();
    if (detokenizer_ == nullptr || (end_token && !options_.include_stop)) continue;
    AddText(detokenizer_->Add(token.id), &delta);
    if (finished_) {
      delta.cancel_engine = !event.finish.has_value();
      return delta;
    }
  }
  if (event.finish) Finish(event, &delta);
  return delta;
}

}  // namespace kvasir::api
