// What load to put on a server.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <string>

#include "base/clock.h"
#include "base/status.h"

namespace kvasir::loadgen {

enum class PromptStyle {
  kTokenIds,  // /v1/completions with token ids: exact lengths
  kText,      // /v1/completions with words; lengths are words
  kChat,      // /v1/chat/completions with words; lengths are words
};

// "ids", "text" or "chat".
StatusOr<PromptStyle> ParsePromptStyle(std::string_view name);
std::string_view PromptStyleName(PromptStyle style);

// A value. Lengths are in tokens, or in words where the prompts are words.
struct Options {
  std::string url = "http://127.0.0.1:8000";
  std::string model;  // empty: the first that the server lists
  std::string api_key;
  bool insecure = false;  // take any certificate of an https server
  PromptStyle style = PromptStyle::kTokenIds;

  int conversations = 100;
  int turns = 1;            // requests of a conversation; each holds all that went before
  int input_length = 512;   // new in each turn, besides the shared prefix
  int output_length = 128;  // tokens
  // Lengths are uniform within this fraction of those above; 0 makes all equal. [0, 1]
  double length_spread = 0;
  int shared_prefix_length = 0;  // what conversations of one group begin with
  int shared_prefix_groups = 1;

  // Conversations at a time; each sends its next turn when the last one is answered. With a rate,
  // the most at a time, and 0 is no limit.
  int concurrency = 8;
  // Conversations a second, with exponential gaps (a Poisson process). 0: as fast as `concurrency`
  // allows.
  double rate = 0;
  int warmup_conversations = 0;  // before the measurement, with prompts of their own

  double temperature = 0;
  bool ignore_eos = true;     // outputs have their full length
  nlohmann::json extra_body;  // an object or null: more fields of every request
  // Random token ids are in [first_token_id, last_token_id].
  int32_t first_token_id = 1000;
  int32_t last_token_id = 9999;
  uint64_t seed = 1;  // of the lengths, prompts and gaps

  Duration request_timeout = std::chrono::seconds(600);
  // A request is good when it meets both; 0 is no bound.
  double slo_ttft_ms = 1000;
  double slo_tpot_ms = 50;

  std::ostream* progress = nullptr;  // a bar is drawn there, and removed at the end
};

// The message of the error names the option at fault.
Status Validate(const Options& options);

}  // namespace kvasir::loadgen
