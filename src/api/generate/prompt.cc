#include "api/generate/prompt.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/protocol/error.h"
#include "core/block_hash.h"

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

}  // namespace

StatusOr<std::vector<TokenId>> EncodeChat(const ServedText& text, const ChatPrompt& prompt) {
  if (text.tokenizer == nullptr || text.chat_template == nullptr) {
    return FieldError("messages",
                      "this model has no chat template; send a prompt to /v1/completions");
  }
  text::ChatInput input;
  input.messages = prompt.messages;
  input.add_generation_prompt = prompt.add_generation_prompt;
  input.template_kwargs = prompt.template_kwargs;
  StatusOr<text::RenderedChat> rendered = text.chat_template->Render(input);
  if (!rendered.ok()) {
    if (!absl::IsInvalidArgument(rendered.status())) return rendered.status();
    return FieldError("messages", std::string(rendered.status().message()));
  }
  return rendered->Encode(*text.tokenizer);
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

StatusOr<std::shared_ptr<const Request>> BuildRequest(const ModelInfo& model,
                                                      const GenerationOptions& options,
                                                      std::vector<TokenId> prompt_ids,
                                                      const RequestContext& context) {
  KVASIR_RETURN_IF_ERROR(CheckPrompt(model, prompt_ids, context.field));
  auto request = std::make_shared<Request>();
  request->sampling = options.sampling;
  KVASIR_ASSIGN_OR_RETURN(request->sampling.max_tokens,
                          MaxTokens(model, options, static_cast<int32_t>(prompt_ids.size()),
                                    context.default_max_tokens));
  KVASIR_RETURN_IF_ERROR(FieldFromMessage(Validate(request->sampling, model.vocab_size)));
  request->id = context.id;
  request->hash_root =
      CacheRoot(model.weights_fingerprint, model.numerics_id, "", options.cache_salt);
  request->unit_hashes = HashUnits(request->hash_root, prompt_ids);
  request->prompt_ids = std::move(prompt_ids);
  request->priority = options.priority;
  request->arrival = context.arrival;
  request->deadline = context.deadline;
  return std::shared_ptr<const Request>(std::move(request));
}

}  // namespace kvasir::api
