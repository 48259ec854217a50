#include <algorithm>
#include <utility>

#include "api/protocol/constraint_fields.h"
#include "api/protocol/generation_fields.h"
#include "api/protocol/sampling_fields.h"
#include "api/protocol/sglang_api.h"

namespace kvasir::api {
namespace {

constexpr int32_t kDefaultNewTokens = 128;  // as SGLang's

void ReadParams(FieldReader& reader, GenerationOptions* options) {
  ReadSampling(reader, options);
  reader.Read("min_new_tokens", &options->sampling.min_tokens, {.min = 0});
  reader.Read("no_stop_trim", &options->include_stop);
  reader.Read("skip_special_tokens", &options->skip_special_tokens);
  int32_t tokens = kDefaultNewTokens;
  reader.Read("max_new_tokens", &tokens, {.min = 0});
  options->max_tokens = tokens;
  options->max_tokens_field = reader.Path("max_new_tokens");
  ConstraintFields constraints(reader, options);
  constraints.Schema("json_schema");
  constraints.Regex("regex");
  constraints.Grammar("ebnf");
  int64_t seed = 0;
  reader.Read("sampling_seed", &seed);
  if (!reader.Has("sampling_seed")) return;
  options->sampling.seed = static_cast<uint64_t>(seed);
  options->has_seed = true;
}

void ReadInputs(FieldReader& reader, SglangRequest* request) {
  request->prompt_field = reader.Has("text") ? "text" : "input_ids";
  if (reader.Has("text") && reader.Has("input_ids")) {
    reader.Fail("input_ids", "contradicts text: a prompt is one or the other");
  }
  if (!reader.Has("text") && !reader.Has("input_ids")) {
    reader.Fail("text", "is required, or input_ids");
  }
  ReadTextOrIds(reader, "text", &request->prompts);
  ReadTextOrIds(reader, "input_ids", &request->prompts);
}

void ReadLogprobs(FieldReader& reader, SglangRequest* request) {
  bool wanted = false;
  int32_t top = 0;
  reader.Read("return_logprob", &wanted);
  reader.Read("top_logprobs_num", &top, {0, kMaxTopLogprobs});
  reader.Read("logprob_start_len", &request->input_logprobs_from, {.min = -1});
  if (!wanted) {
    request->input_logprobs_from = -1;
    return;
  }
  request->options.sampling.logprobs = top;
  if (request->input_logprobs_from >= 0) request->options.prompt_logprobs = top;
}

}  // namespace

void ReadSglangRequest(FieldReader& reader, SglangRequest* request) {
  GenerationOptions& options = request->options;
  options.max_tokens = kDefaultNewTokens;
  options.return_token_ids = true;
  ReadInputs(reader, request);
  reader.ReadObject("sampling_params", [&](FieldReader& params) { ReadParams(params, &options); });
  reader.Read("stream", &options.stream);
  reader.Read("priority", &options.priority);
  reader.Read("cache_salt", &options.cache_salt);
  ReadLogprobs(reader, request);
  RefuseUnsupported(reader, {{"image_data"},
                             {"audio_data"},
                             {"video_data"},
                             {"input_embeds"},
                             {"lora_path"},
                             {"return_hidden_states"}});
  if (options.max_tokens == 0 && options.prompt_logprobs < 0) {
    reader.Fail("sampling_params.max_new_tokens",
                "must be at least 1, unless logprob_start_len asks about the prompt");
  }
}

}  // namespace kvasir::api
