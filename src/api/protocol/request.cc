#include "api/protocol/request.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/protocol/chat_messages.h"
#include "api/protocol/constraint_fields.h"
#include "api/protocol/error.h"
#include "api/protocol/sampling_fields.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxPrompts = 1024;
constexpr int64_t kMaxChoices = 2048;  // of one request: prompts times n
constexpr int32_t kMaxTopLogprobs = 20;

// Fields that would change the answer and that this server does not implement: refused by name
// unless they are absent, null, false, empty, or the one value that asks for nothing.
struct Unsupported {
  const char* field;
  Json harmless = nullptr;
};

bool AsksForNothing(const Json& value, const Json& harmless) {
  if (value.is_boolean()) return !value.get<bool>() || value == harmless;
  if (value.is_array() || value.is_object() || value.is_string()) {
    return value.empty() || value == harmless;
  }
  return value == harmless;
}

void RefuseUnsupported(FieldReader& reader, std::initializer_list<Unsupported> fields) {
  for (const Unsupported& u : fields) {
    const Json* value = reader.Get(u.field);
    if (value == nullptr || AsksForNothing(*value, u.harmless)) continue;
    return reader.Fail(u.field, "is not supported by this server");
  }
}

void RefuseUnsupportedCommon(FieldReader& reader) {
  RefuseUnsupported(
      reader,
      {{"use_beam_search"}, {"length_penalty", 1.0}, {"prompt_logprobs"}, {"logits_processors"}});
}

void ReadTruncation(FieldReader& reader, std::optional<int32_t>* truncate) {
  if (reader.Get("truncate_prompt_tokens") == nullptr) return;
  int32_t tokens = 0;
  reader.Read("truncate_prompt_tokens", &tokens);
  if (tokens < 1 && tokens != -1) {
    return reader.Fail("truncate_prompt_tokens", "must be positive, or -1");
  }
  *truncate = tokens;
}

void ReadMaxTokens(FieldReader& reader, std::initializer_list<const char*> spellings,
                   GenerationOptions* options) {
  for (const char* field : spellings) {
    if (reader.Get(field) == nullptr) continue;
    int32_t value = 0;
    reader.Read(field, &value);
    if (reader.status().ok() && value < 1) return reader.Fail(field, "must be at least 1");
    options->max_tokens = value;
    options->max_tokens_field = field;
    return;
  }
}

void ReadStreamOptions(FieldReader& reader, GenerationOptions* options) {
  const Json* value = reader.Get("stream_options");
  if (value == nullptr) return;
  if (!value->is_object()) return reader.Fail("stream_options", "must be an object");
  if (!options->stream) return reader.Fail("stream_options", "needs stream to be true");
  FieldReader inner(*value, "stream_options");
  inner.Read("include_usage", &options->include_usage);
  inner.Read("continuous_usage_stats", &options->continuous_usage);
  if (!inner.status().ok()) reader.Fail(inner.status());
}

void ReadCommon(FieldReader& reader, GenerationOptions* options) {
  reader.Read("model", &options->model);
  reader.Read("stream", &options->stream);
  ReadStreamOptions(reader, options);
  ReadSampling(reader, options);
  ReadTruncation(reader, &options->truncate_prompt);
  ReadConstraint(reader, options);
  reader.Read("include_stop_str_in_output", &options->include_stop);
  reader.Read("skip_special_tokens", &options->skip_special_tokens);
  reader.Read("add_special_tokens", &options->add_special_tokens);
  reader.Read("priority", &options->priority);
  reader.Read("cache_salt", &options->cache_salt);
  reader.Read("return_token_ids", &options->return_token_ids);
  RefuseUnsupportedCommon(reader);
}

void ReadChatLogprobs(FieldReader& reader, SamplingParams* sampling) {
  bool logprobs = false;
  int32_t top = 0;
  reader.Read("logprobs", &logprobs);
  reader.Read("top_logprobs", &top);
  if (top < 0 || top > kMaxTopLogprobs) {
    return reader.Fail("top_logprobs", fmt::format("must be in [0, {}]", kMaxTopLogprobs));
  }
  if (top > 0 && !logprobs) return reader.Fail("top_logprobs", "needs logprobs to be true");
  if (logprobs) sampling->logprobs = top;
}

void ReadCompletionLogprobs(FieldReader& reader, SamplingParams* sampling) {
  if (reader.Get("logprobs") == nullptr) return;
  int32_t top = 0;
  reader.Read("logprobs", &top);
  if (top < 0 || top > kMaxTopLogprobs) {
    return reader.Fail("logprobs", fmt::format("must be in [0, {}]", kMaxTopLogprobs));
  }
  sampling->logprobs = top;
}

// A string, token ids, or an array of either.
void ReadPrompts(FieldReader& reader, CompletionRequest* request) {
  const Json* value = reader.Get("prompt");
  if (value == nullptr) return reader.Fail("prompt", "is required");
  if (value->is_string()) {
    request->prompts.emplace_back(value->get<std::string>());
    return;
  }
  constexpr const char* kExpected =
      "must be a string, an array of token ids, or an array of strings or of arrays of token ids";
  if (!value->is_array()) return reader.Fail("prompt", kExpected);
  if (value->empty()) return reader.Fail("prompt", "must not be empty");
  if (value->front().is_number()) {
    std::vector<TokenId> ids;
    reader.Read("prompt", &ids);
    request->prompts.emplace_back(std::move(ids));
    return;
  }
  if (value->size() > kMaxPrompts) {
    return reader.Fail("prompt", fmt::format("holds more than {} prompts", kMaxPrompts));
  }
  request->batch = true;
  for (size_t i = 0; i < value->size(); ++i) {
    const Json& item = (*value)[i];
    const std::string name = fmt::format("prompt[{}]", i);
    if (item.is_string()) {
      request->prompts.emplace_back(item.get<std::string>());
      continue;
    }
    if (!item.is_array()) return reader.Fail(name, "must be a string or an array of token ids");
    StatusOr<std::vector<TokenId>> ids = AsTokenIds(item, name);
    if (!ids.ok()) return reader.Fail(ids.status());
    request->prompts.emplace_back(*std::move(ids));
  }
}

// Whose turn it is after the messages: a new one of the assistant's, or still that of the last.
void ReadTurn(FieldReader& reader, ChatPrompt* prompt) {
  reader.Read("continue_final_message", &prompt->continue_final_message);
  if (prompt->continue_final_message) prompt->add_generation_prompt = false;
  reader.Read("add_generation_prompt", &prompt->add_generation_prompt);
  if (prompt->continue_final_message && prompt->add_generation_prompt) {
    reader.Fail("continue_final_message", "contradicts add_generation_prompt");
  }
}

void ReadChatPrompt(FieldReader& reader, ChatPrompt* prompt) {
  if (!reader.status().ok()) return;
  const Json* messages = reader.Get("messages");
  if (messages == nullptr) return reader.Fail("messages", "is required");
  StatusOr<Json> normal = NormalizeMessages(*messages);
  if (!normal.ok()) return reader.Fail(normal.status());
  prompt->messages = *std::move(normal);
  ReadTurn(reader, prompt);
  if (const Json* kwargs = reader.Get("chat_template_kwargs")) {
    if (!kwargs->is_object()) return reader.Fail("chat_template_kwargs", "must be an object");
    prompt->template_kwargs = *kwargs;
  }
  RefuseUnsupported(reader, {{"chat_template"}, {"documents"}});
}

// A call leaves no content that a response_format could be of; the other fields mean all output.
void CheckToolsAgainstConstraint(FieldReader& reader, ChatRequest* request) {
  const ToolChoice choice = request->tools.choice;
  if (choice != ToolChoice::kRequired && choice != ToolChoice::kNamed) return;
  GenerationOptions& options = request->options;
  if (options.constraint && !options.constraint_field.starts_with("response_format")) {
    reader.Fail(FieldError(options.constraint_field,
                           "contradicts tool_choice: an answer takes one constraint"));
  }
  options.constraint.reset();
}

}  // namespace

StatusOr<ChatRequest> ParseChatRequest(const Json& body) {
  ChatRequest request;
  FieldReader reader(body, "");
  ReadCommon(reader, &request.options);
  ReadMaxTokens(reader, {"max_completion_tokens", "max_tokens"}, &request.options);
  ReadChatLogprobs(reader, &request.options.sampling);
  RefuseUnsupported(reader, {{"modalities", Json::array({"text"})},
                             {"audio"},
                             {"echo"},
                             {"functions"},
                             {"function_call", "none"}});
  ReadChatPrompt(reader, &request.prompt);
  ReadTools(reader, &request.tools);
  request.prompt.tools = request.tools.definitions;
  CheckToolsAgainstConstraint(reader, &request);
  KVASIR_RETURN_IF_ERROR(reader.status());
  return request;
}

StatusOr<CompletionRequest> ParseCompletionRequest(const Json& body) {
  CompletionRequest request;
  FieldReader reader(body, "");
  ReadCommon(reader, &request.options);
  ReadMaxTokens(reader, {"max_tokens", "max_completion_tokens"}, &request.options);
  ReadCompletionLogprobs(reader, &request.options.sampling);
  RefuseUnsupported(
      reader, {{"echo"}, {"suffix"}, {"prompt_embeds"}, {"best_of", request.options.sampling.n}});
  ReadPrompts(reader, &request);
  const int64_t n = std::max(1, request.options.sampling.n);
  if (static_cast<int64_t>(request.prompts.size()) * n > kMaxChoices) {
    reader.Fail("n", fmt::format("makes more than {} choices of these prompts", kMaxChoices));
  }
  KVASIR_RETURN_IF_ERROR(reader.status());
  return request;
}

StatusOr<TokenizeRequest> ParseTokenizeRequest(const Json& body) {
  TokenizeRequest request;
  FieldReader reader(body, "");
  reader.Read("model", &request.model);
  reader.Read("return_token_strs", &request.return_token_strs);
  if (reader.Get("messages") != nullptr) {
    ChatPrompt prompt;
    ReadChatPrompt(reader, &prompt);
    ToolOptions tools;
    ReadTools(reader, &tools);
    prompt.tools = std::move(tools.definitions);
    request.prompt = std::move(prompt);
    request.add_special_tokens = false;  // a template writes its own
  } else if (reader.Get("prompt") != nullptr) {
    std::string prompt;
    reader.Read("prompt", &prompt);
    request.prompt = std::move(prompt);
  } else {
    reader.Fail("prompt", "is required");
  }
  reader.Read("add_special_tokens", &request.add_special_tokens);
  KVASIR_RETURN_IF_ERROR(reader.status());
  return request;
}

StatusOr<DetokenizeRequest> ParseDetokenizeRequest(const Json& body) {
  DetokenizeRequest request;
  FieldReader reader(body, "");
  reader.Read("model", &request.model);
  if (reader.Get("tokens") == nullptr) reader.Fail("tokens", "is required");
  reader.Read("tokens", &request.tokens);
  KVASIR_RETURN_IF_ERROR(reader.status());
  return request;
}

}  // namespace kvasir::api
