#include "api/generate/choice_stream.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace kvasir::api {
namespace {

// Formats are written in control tokens where a vocabulary has them, so those must become text.
std::vector<TokenId> ControlTokensOf(const text::OutputFormat& format,
                                     const text::Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  for (const std::string_view marker : text::Markers(format)) {
    if (const auto id = text::ControlToken(tokenizer, marker)) ids.push_back(*id);
  }
  return ids;
}

}  // namespace

void ChoiceDelta::AddCall(ToolCallPiece piece) {
  if (tool_calls.empty() || tool_calls.back().index != piece.index) {
    tool_calls.push_back(std::move(piece));
  } else {
    tool_calls.back().arguments += piece.arguments;
  }
}

void ChoiceDelta::Append(ChoiceDelta next) {
  text += next.text;
  reasoning += next.reasoning;
  for (ToolCallPiece& piece : next.tool_calls) AddCall(std::move(piece));
  reasoning_tokens += next.reasoning_tokens;
  std::move(next.tokens.begin(), next.tokens.end(), std::back_inserter(tokens));
  if (!next.finish_reason.empty()) {
    finish_reason = std::move(next.finish_reason);
    stop_reason = std::move(next.stop_reason);
  }
}

ChoiceStream::ChoiceStream(const ChoiceOptions& options)
    : options_(options), stop_matcher_(options.stop, options.include_stop) {
  if (options.tokenizer == nullptr) return;
  detokenizer_ = std::make_unique<text::Detokenizer>(
      *options.tokenizer, options.skip_special_tokens, options.continues_prompt,
      ControlTokensOf(options.format, *options.tokenizer));
  if (options.format != text::OutputFormat()) parser_.emplace(options.format, options.reasoning);
}

void ChoiceStream::AddParsed(text::ParsedOutput parsed, ChoiceDelta* delta) {
  delta->text += parsed.content;
  delta->reasoning += parsed.reasoning;
  for (text::ToolCallDelta& call : parsed.calls) {
    ToolCallPiece piece{
        .index = call.index, .name = std::move(call.name), .arguments = std::move(call.arguments)};
    if (!piece.name.empty()) piece.id = options_.new_call_id();
    delta->AddCall(std::move(piece));
  }
}

// Text that no stop string can be part of any more.
void ChoiceStream::AddOutput(std::string_view text, ChoiceDelta* delta) {
  if (parser_) {
    AddParsed(parser_->Add(text), delta);
  } else {
    delta->text += text;
  }
}

// What the parser held back.
void ChoiceStream::FinishParser(ChoiceDelta* delta) {
  if (!parser_) return;
  AddParsed(parser_->Finish(), delta);
  if (parser_->calls() > 0 && delta->finish_reason == "stop") delta->finish_reason = "tool_calls";
}

void ChoiceStream::AddText(std::string_view piece, ChoiceDelta* delta) {
  if (tokens_ <= options_.min_tokens) return AddOutput(piece, delta);
  text::StopMatcher::Result result = stop_matcher_.Add(piece);
  AddOutput(result.text, delta);
  if (!result.match) return;
  delta->finish_reason = "stop";
  delta->stop_reason = *std::move(result.match);
  finished_ = true;
}

void ChoiceStream::Finish(const TokenEvent& event, ChoiceDelta* delta) {
  if (detokenizer_ != nullptr) {
    AddText(detokenizer_->Flush(), delta);
    if (finished_) return;  // a stop string ended in the very last characters
    AddOutput(stop_matcher_.Flush(), delta);
  }
  finished_ = true;
  delta->finish_reason = event.finish == FinishReason::kLength ? "length" : "stop";
  if (event.finish != FinishReason::kStop || event.tokens.empty()) return;
  const TokenId last = event.tokens.back().id;
  const auto& ids = options_.stop_token_ids;
  if (std::find(ids.begin(), ids.end(), last) != ids.end()) delta->stop_reason = last;
}

void ChoiceStream::AddToken(const TokenOut& token, bool is_text, ChoiceDelta* delta) {
  delta->tokens.push_back(token);
  ++tokens_;
  const bool before = parser_ && parser_->in_reasoning();
  if (is_text && detokenizer_ != nullptr) AddText(detokenizer_->Add(token.id), delta);
  if (before || (parser_ && parser_->in_reasoning())) ++delta->reasoning_tokens;
}

ChoiceDelta ChoiceStream::Add(const TokenEvent& event) {
  ChoiceDelta delta;
  if (finished_) return delta;
  for (size_t i = 0; !finished_ && i < event.tokens.size(); ++i) {
    const bool end_token = event.finish == FinishReason::kStop && i + 1 == event.tokens.size();
    AddToken(event.tokens[i], !end_token || options_.include_stop, &delta);
    delta.cancel_engine = finished_ && !event.finish.has_value();
  }
  if (event.finish && !finished_) Finish(event, &delta);
  if (finished_) FinishParser(&delta);
  return delta;
}

}  // namespace kvasir::api
