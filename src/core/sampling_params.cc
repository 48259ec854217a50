#include "core/sampling_params.h"

#include <cmath>

namespace kvasir {
namespace {

constexpr int32_t kMaxChoices = 128;
constexpr int32_t kMaxLogprobs = 20;

Status CheckRange(const char* field, float value, float low, float high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", value, " is out of range [", low, ", ", high, "]"));
}

Status CheckToken(const char* field, TokenId id, int32_t vocab_size) {
  if (id >= 0 && id < vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": token id ", id, " is outside the vocabulary of ", vocab_size));
}

}  // namespace

Status Validate(const SamplingParams& p, int32_t vocab_size) {
  KVASIR_RETURN_IF_ERROR(CheckRange("temperature", p.temperature, 0.0f, 100.0f));
  if (p.top_k < 0) return absl::InvalidArgumentError("top_k: must be -1, 0 or positive");
  KVASIR_RETURN_IF_ERROR(CheckRange("top_p", p.top_p, 0.0f, 1.0f));
  if (p.top_p == 0.0f) return absl::InvalidArgumentError("top_p: must be greater than 0");
  KVASIR_RETURN_IF_ERROR(CheckRange("min_p", p.min_p, 0.0f, 1.0f));
  KVASIR_RETURN_IF_ERROR(CheckRange("presence_penalty", p.presence_penalty, -2.0f, 2.0f));
  KVASIR_RETURN_IF_ERROR(CheckRange("frequency_penalty", p.frequency_penalty, -2.0f, 2.0f));
  KVASIR_RETURN_IF_ERROR(CheckRange("repetition_penalty", p.repetition_penalty, 0.0f, 10.0f));
  if (p.repetition_penalty == 0.0f) {
    return absl::InvalidArgumentError("repetition_penalty: must be greater than 0");
  }
  for (const auto& [id, bias] : p.logit_bias) {
    KVASIR_RETURN_IF_ERROR(CheckToken("logit_bias", id, vocab_size));
    KVASIR_RETURN_IF_ERROR(CheckRange("logit_bias", bias, -100.0f, 100.0f));
  }
  for (TokenId id : p.allowed_token_ids) {
    KVASIR_RETURN_IF_ERROR(CheckToken("allowed_token_ids", id, vocab_size));
  }
  for (const std::vector<TokenId>& word : p.bad_words) {
    if (word.empty()) return absl::InvalidArgumentError("bad_words: must not hold an empty word");
    for (TokenId id : word) KVASIR_RETURN_IF_ERROR(CheckToken("bad_words", id, vocab_size));
  }
  if (p.n < 1 || p.n > kMaxChoices) {
    return absl::InvalidArgumentError(absl::StrCat("n: must be in [1, ", kMaxChoices, "]"));
  }
  if (p.max_tokens < 0) return absl::InvalidArgumentError("max_tokens: must not be negative");
  if (p.min_tokens < 0 || p.min_tokens > p.max_tokens) {
    return absl::InvalidArgumentError("min_tokens: must be in [0, max_tokens]");
  }
  for (TokenId id : p.stop_token_ids) {
    KVASIR_RETURN_IF_ERROR(CheckToken("stop_token_ids", id, vocab_size));
  }
  if (p.logprobs < -1 || p.logprobs > kMaxLogprobs) {
    return absl::InvalidArgumentError(absl::StrCat("logprobs: must be in [0, ", kMaxLogprobs, "]"));
  }
  return absl::OkStatus();
}

}  // namespace kvasir
