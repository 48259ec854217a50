#include "api/generate/prompt.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/protocol/error.h"
#include "core/block_hash.h"
#include "text/infill.h"

namespace kvasir::api {
namespace {

constexpr std::string_view kTooLong = "context_length_exceeded";

Status CheckPrompt(const ModelInfo& model, const std::vector<TokenId>& ids,
                   const std::string& field) {
  if (ids.empty()) return FieldError(field, "must hold at least one token");
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < model.vocab_size) continue;
    return FieldError(field, fmt::format("token id {} at index {} is outside the vocabulary of {}",
                                         ids[i], i, model.vocab_size));
  }
  if (static_cast<int64_t>(ids.size()) >= model.max_model_len) {
    return WithCode(
        FieldError(field, fmt::format("the prompt of {} tokens leaves no room for an answer: the "
                                      "model's context is {} tokens",
                                      ids.size(), model.max_model_len)),
        kTooLong);
  }
  return absl::OkStatus();
}

// Output tokens per choice; never more than the context leaves.
StatusOr<int32_t> MaxTokens(const ModelInfo& model, const GenerationOptions& options,
                            int32_t prompt_tokens, int32_t default_max_tokens) {
  const int32_t room = model.max_model_len - prompt_tokens;
  if (!options.max_tokens) {
    return default_max_tokens == 0 ? room : std::min(room, default_max_tokens);
  }
  if (*options.max_tokens <= room) return *options.max_tokens;
  return WithCode(
      FieldError(options.max_tokens_field,
                 fmt::format("{} is too large: the prompt has {} tokens and the model's context "
                             "is {}",
                             *options.max_tokens, prompt_tokens, model.max_model_len)),
      kTooLong);
}

// Keeps the end of a prompt, which is what the answer follows.
void Truncate(const ModelInfo& model, const GenerationOptions& options, std::vector<TokenId>* ids) {
  if (!options.truncate_prompt) return;
  const int32_t room = model.max_model_len - options.max_tokens.value_or(1);
  const int32_t keep =
      *options.truncate_prompt == -1 ? std::max(1, room) : *options.truncate_prompt;
  if (ids->size() > static_cast<size_t>(keep)) ids->erase(ids->begin(), ids->end() - keep);
}

// How many choices the engine makes, which may be more than are answered.
void SetParallel(const GenerationOptions& options, Request* request) {
  SamplingParams& sampling = request->sampling;
  sampling.n = std::max(options.best_of, options.sampling.n);
  if (options.beam_search) {
    request->beams = BeamSearch{options.length_penalty, options.early_stopping};
  } else if (sampling.n > options.sampling.n) {
    sampling.logprobs = std::max(sampling.logprobs, int32_t{0});  // to rank them by
  }
}

// Of a rendering: the template's own words are about the messages.
Status TemplateError(const Status& status) {
  const std::string message(status.message());
  for (const char* field :
       {"messages", "tools", "chat_template_kwargs", "continue_final_message"}) {
    if (message.starts_with(fmt::format("{}: ", field))) return FieldFromMessage(status);
  }
  return FieldError("messages", message);
}

// A message that is to be continued may have begun its reasoning long ago.
text::ReasoningState StateInLastMessage(const Json& messages) {
  const Json& content = messages.back()["content"];
  if (!content.is_string()) return text::ReasoningState::kNotBegun;
  const std::string& text = content.get_ref<const std::string&>();
  const size_t open = text.rfind(text::kThinkOpen);
  const size_t close = text.rfind(text::kThinkClose);
  const bool is_open = open != std::string::npos && (close == std::string::npos || close < open);
  return is_open ? text::ReasoningState::kOpen : text::ReasoningState::kClosed;
}

}  // namespace

StatusOr<EncodedChat> EncodeChat(const ServedText& text, const ChatPrompt& prompt) {
  if (text.tokenizer == nullptr || text.chat_template == nullptr) {
    return FieldError("messages",
                      "this model has no chat template; send a prompt to /v1/completions");
  }
  text::ChatInput input;
  input.messages = prompt.messages;
  input.tools = prompt.tools;
  input.add_generation_prompt = prompt.add_generation_prompt;
  input.continue_final_message = prompt.continue_final_message;
  input.template_kwargs = prompt.template_kwargs;
  StatusOr<text::RenderedChat> rendered = text.chat_template->Render(input);
  if (!rendered.ok()) {
    if (!absl::IsInvalidArgument(rendered.status())) return rendered.status();
    return TemplateError(rendered.status());
  }
  EncodedChat out;
  if (prompt.continue_final_message) {
    out.reasoning = StateInLastMessage(prompt.messages);
  } else if (!rendered->pieces.empty()) {
    out.reasoning = text::StateAtEnd(rendered->pieces.back().text);
  }
  KVASIR_ASSIGN_OR_RETURN(out.ids, rendered->Encode(*text.tokenizer));
  return out;
}

StatusOr<std::vector<TokenId>> EncodePrompt(const ServedText& text, const TextOrIds& prompt,
                                            bool add_special_tokens, const std::string& field) {
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) return *ids;
  if (text.tokenizer == nullptr) {
    return FieldError(field, "this model is served without a tokenizer; send token ids");
  }
  KVASIR_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                          text.tokenizer->Encode(std::get<std::string>(prompt), true));
  if (add_special_tokens) {
    const std::vector<TokenId>& prefix = text.tokenizer->PromptPrefix();
    ids.insert(ids.begin(), prefix.begin(), prefix.end());
  }
  return ids;
}

StatusOr<std::vector<TokenId>> EncodeInfill(const ServedText& text, const std::string& before,
                                            const std::string& after) {
  if (text.tokenizer == nullptr) {
    return FieldError("suffix", "this model is served without a tokenizer");
  }
  StatusOr<std::vector<TokenId>> ids = text::EncodeInfill(*text.tokenizer, before, after);
  if (!absl::IsInvalidArgument(ids.status())) return ids;
  return FieldError("suffix", std::string(ids.status().message()));
}

StatusOr<std::vector<std::vector<TokenId>>> EncodeBadWords(const text::Tokenizer& tokenizer,
                                                           const std::vector<std::string>& words) {
  std::vector<std::vector<TokenId>> sequences;
  for (const std::string& word : words) {
    const std::string bare = word.substr(word.find_first_not_of(' '));
    for (const std::string& text : {bare, " " + bare}) {
      KVASIR_ASSIGN_OR_RETURN(std::vector<TokenId> ids, tokenizer.Encode(text, true));
      if (!ids.empty()) sequences.push_back(std::move(ids));
    }
  }
  return sequences;
}

StatusOr<std::shared_ptr<const Request>> BuildRequest(const ModelInfo& model,
                                                      const GenerationOptions& options,
                                                      std::vector<TokenId> prompt_ids,
                                                      const RequestContext& context) {
  Truncate(model, options, &prompt_ids);
  KVASIR_RETURN_IF_ERROR(CheckPrompt(model, prompt_ids, context.field));
  auto request = std::make_shared<Request>();
  request->sampling = options.sampling;
  KVASIR_ASSIGN_OR_RETURN(request->sampling.max_tokens,
                          MaxTokens(model, options, static_cast<int32_t>(prompt_ids.size()),
                                    context.default_max_tokens));
  KVASIR_RETURN_IF_ERROR(FieldFromMessage(Validate(request->sampling, model.vocab_size)));
  SetParallel(options, request.get());
  request->constraint = options.constraint;
  request->prompt_logprobs = options.prompt_logprobs;
  request->pooling = options.pooling;
  request->id = context.id;
  request->hash_root =
      CacheRoot(model.weights_fingerprint, model.numerics_id, "", options.cache_salt);
  request->unit_hashes = HashUnits(request->hash_root, prompt_ids);
  request->prompt_ids = std::move(prompt_ids);
  request->priority = options.priority.value_or(0);
  request->arrival = context.arrival;
  request->deadline = context.deadline;
  return std::shared_ptr<const Request>(std::move(request));
}

}  // namespace kvasir::api
