// The bodies that clients send, as typed values. Reading checks types, ranges that need no model,
// and that nothing is asked for that this server would silently leave out; unknown fields are
// ignored, as the OpenAI API and vLLM do. Each Read function is for ReadBody, or for DescribeBody,
// which makes of it what /openapi.json says.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "api/protocol/fields.h"
#include "api/protocol/tools.h"
#include "base/status.h"
#include "core/request.h"
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
  // Sampled choices for each prompt, of which the n best are answered; 0: n.
  int32_t best_of = 0;
  bool beam_search = false;  // best_of beams, of which the n best are answered
  float length_penalty = 1.0f;
  bool early_stopping = false;
  int32_t prompt_logprobs = -1;  // as in Request
  Pooling pooling = Pooling::kNone;
  bool include_stop = false;        // include_stop_str_in_output
  bool skip_special_tokens = true;  // of the output text
  bool add_special_tokens = true;   // BOS before a text prompt, where the model wants one
  std::optional<int32_t> priority;
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

struct TextOrIdsList {
  std::vector<TextOrIds> items;  // at least one
  bool batch = false;            // the client sent an array of them
};

struct CompletionRequest {
  GenerationOptions options;
  TextOrIdsList prompts;
  std::string suffix;  // what follows the answer; empty: nothing is said of it
  bool echo = false;
  // options.prompt_logprobs as the client asked for them; echo may need more of them.
  int32_t shown_prompt_logprobs = -1;
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

void ReadChatRequest(FieldReader& reader, ChatRequest* request);
void ReadCompletionRequest(FieldReader& reader, CompletionRequest* request);
// The two forms of /tokenize: a prompt, or messages where the body has them.
void ReadTokenizeText(FieldReader& reader, TokenizeRequest* request);
void ReadTokenizeChat(FieldReader& reader, TokenizeRequest* request);
void ReadDetokenizeRequest(FieldReader& reader, DetokenizeRequest* request);

// Parts of these, which other protocols have too.
void ReadChatPrompt(FieldReader& reader, ChatPrompt* prompt);
// A string, token ids, or an array of either.
void ReadTextOrIds(FieldReader& reader, const char* name, TextOrIdsList* out);
// Of a request whose calls are required, a constraint of the content has no meaning; one of the
// whole output, which is any that `format_field` does not begin, contradicts it.
void ReconcileToolsWithConstraint(FieldReader& reader, const char* format_field,
                                  ChatRequest* request);

}  // namespace kvasir::api
