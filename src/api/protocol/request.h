// The bodies that clients send, as typed values. Parsing checks types, ranges that need no model,
// and that nothing is asked for that this server would silently leave out; unknown fields are
// ignored, as the OpenAI API and vLLM do.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "api/protocol/json.h"
#include "api/protocol/tools.h"
#include "base/status.h"
#include "core/constraint.h"
#include "core/sampling_params.h"

namespace kvasir::api {

// What chat and text completions have in common.
struct GenerationOptions {
  std::string model;        // empty: the one that is served
  SamplingParams sampling;  // max_tokens and seed are filled in later when the client gave none
  std::optional<int32_t> max_tokens;
  std::string max_tokens_field = "max_tokens";  // how the client spelled it
  bool has_seed = false;
  std::vector<std::string> stop;
  std::vector<std::string> bad_words;  // token ids are for the tokenizer to find
  std::optional<Constraint> constraint;
  std::string constraint_field;  // where the client wrote it, or what it was made of
  // truncate_prompt_tokens: the prompt's last tokens that are kept; -1: all that leave room for the
  // answer.
  std::optional<int32_t> truncate_prompt;
  bool include_stop = false;        // include_stop_str_in_output
  bool skip_special_tokens = true;  // of the output text
  bool add_special_tokens = true;   // BOS before a text prompt, where the model wants one
  int32_t priority = 0;
  std::string cache_salt;
  bool stream = false;
  bool include_usage = false;     // stream_options.include_usage
  bool continuous_usage = false;  // stream_options.continuous_usage_stats
  bool return_token_ids = false;
};

// What a chat template renders.
struct ChatPrompt {
  Json messages;  // content is a string or null; text parts are joined
  Json tools;     // an array or null
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  Json template_kwargs;  // an object or null
};

struct ChatRequest {
  GenerationOptions options;
  ChatPrompt prompt;
  ToolOptions tools;
};

using TextOrIds = std::variant<std::string, std::vector<TokenId>>;

struct CompletionRequest {
  GenerationOptions options;
  std::vector<TextOrIds> prompts;  // at least one
  bool batch = false;              // the client sent an array of prompts
};

struct TokenizeRequest {
  std::string model;
  std::variant<std::string, ChatPrompt> prompt;
  bool add_special_tokens = true;
  bool return_token_strs = false;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<TokenId> tokens;
};

StatusOr<ChatRequest> ParseChatRequest(const Json& body);
StatusOr<CompletionRequest> ParseCompletionRequest(const Json& body);
StatusOr<TokenizeRequest> ParseTokenizeRequest(const Json& body);
StatusOr<DetokenizeRequest> ParseDetokenizeRequest(const Json& body);

}  // namespace kvasir::api
