#include "loadgen/conversation.h"

#include <utility>

namespace kvasir::loadgen {

using nlohmann::json;

ConversationState::ConversationState(const Options& options, std::string model,
                                     const Content& prefix)
    : options_(options), model_(std::move(model)), ids_(prefix.ids) {
  if (prefix.words.empty()) return;
  text_ = prefix.words + " ";
  messages_.push_back({{"role", "system"}, {"content", prefix.words}});
}

void ConversationState::AddInput(const Content& input) {
  switch (options_.style) {
    case PromptStyle::kTokenIds:
      ids_.insert(ids_.end(), input.ids.begin(), input.ids.end());
      break;
    case PromptStyle::kText:
      text_ += input.words;
      break;
    case PromptStyle::kChat:
      messages_.push_back({{"role", "user"}, {"content", input.words}});
      break;
  }
}

HttpRequest ConversationState::NextRequest(const Turn& turn) {
  AddInput(turn.input);
  json body = {{"max_tokens", turn.output_length},
               {"temperature", options_.temperature},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}}};
  if (!model_.empty()) body["model"] = model_;
  if (options_.ignore_eos) body["ignore_eos"] = true;
  HttpRequest request{.method = "POST", .path = "/v1/completions"};
  switch (options_.style) {
    case PromptStyle::kTokenIds:
      body["prompt"] = ids_;
      // The next turn repeats what was generated.
      if (options_.turns > 1) body["return_token_ids"] = true;
      break;
    case PromptStyle::kText:
      body["prompt"] = text_;
      break;
    case PromptStyle::kChat:
      request.path = "/v1/chat/completions";
      body["messages"] = messages_;
      break;
  }
  if (options_.extra_body.is_object()) body.update(options_.extra_body);
  request.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
  return request;
}

Status ConversationState::Add(const CompletionStream::Answer& answer) {
  if (options_.style == PromptStyle::kTokenIds && answer.ids.empty() && answer.output_tokens > 0) {
    return absl::FailedPreconditionError(
        "the server returns no token ids, which conversations in token ids need; use text or chat");
  }
  ids_.insert(ids_.end(), answer.ids.begin(), answer.ids.end());
  text_ += answer.text + " ";
  messages_.push_back({{"role", "assistant"}, {"content", answer.text}});
  return absl::OkStatus();
}

}  // namespace kvasir::loadgen
