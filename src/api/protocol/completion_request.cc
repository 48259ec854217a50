#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "api/protocol/error.h"
#include "api/protocol/generation_fields.h"
#include "api/protocol/request.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxPrompts = 1024;
constexpr int64_t kMaxChoices = 2048;  // of one request: prompts times n

void ReadLogprobs(FieldReader& reader, SamplingParams* sampling) {
  int32_t top = -1;
  reader.Read("logprobs", &top, {0, kMaxTopLogprobs});
  sampling->logprobs = top;
}

// The prompt as part of the answer. Its log-probabilities come with it where the answer's do.
void ReadEcho(FieldReader& reader, CompletionRequest* request) {
  GenerationOptions& options = request->options;
  reader.Read("echo", &request->echo);
  request->shown_prompt_logprobs = options.prompt_logprobs;
  if (request->echo && !request->suffix.empty()) {
    reader.Fail("suffix", "contradicts echo: the answer stands between the prompt and the suffix");
  }
  const bool scored = request->echo && (options.sampling.logprobs >= 0 || options.max_tokens == 0);
  if (scored) {
    options.prompt_logprobs =
        std::max({options.prompt_logprobs, options.sampling.logprobs, int32_t{0}});
  }
  if (options.max_tokens == 0 && options.prompt_logprobs < 0) {
    reader.Fail(options.max_tokens_field,
                "must be at least 1, unless echo or prompt_logprobs asks about the prompt");
  }
}

void ReadBestOf(FieldReader& reader, GenerationOptions* options) {
  reader.Read("best_of", &options->best_of, {1, 128});
  if (!reader.Has("best_of")) return;
  if (options->best_of < options->sampling.n) {
    return reader.Fail("best_of", "must not be less than n");
  }
  if (options->stream && options->best_of > options->sampling.n) {
    reader.Fail("best_of", "can't be streamed: which answers are the best is known at the end");
  }
}

Json TextOrIdsSchema() {
  const Json text = {{"type", "string"}};
  const auto list = [](Json items) {
    Json schema = ArrayOf(std::move(items));
    schema["minItems"] = 1;
    schema["maxItems"] = kMaxPrompts;
    return schema;
  };
  Json ids = TokenIdsSchema();
  ids["minItems"] = 1;
  return AnyOf({text, ids, list(text), list(ids)});
}

StatusOr<TextOrIdsList> ParseTextOrIds(const Json& value, const std::string& path) {
  TextOrIdsList out;
  if (value.is_string()) {
    out.items.emplace_back(value.get<std::string>());
    return out;
  }
  if (!value.is_array()) {
    return FieldError(path,
                      "must be a string, an array of token ids, or an array of strings or of "
                      "arrays of token ids");
  }
  if (value.empty()) return FieldError(path, "must not be empty");
  if (value.front().is_number()) {
    KVASIR_ASSIGN_OR_RETURN(std::vector<TokenId> ids, AsTokenIds(value, path));
    out.items.emplace_back(std::move(ids));
    return out;
  }
  if (value.size() > kMaxPrompts) {
    return FieldError(path, fmt::format("holds more than {} of them", kMaxPrompts));
  }
  out.batch = true;
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string name = fmt::format("{}[{}]", path, i);
    if (value[i].is_string()) {
      out.items.emplace_back(value[i].get<std::string>());
    } else if (value[i].is_array()) {
      KVASIR_ASSIGN_OR_RETURN(std::vector<TokenId> ids, AsTokenIds(value[i], name));
      out.items.emplace_back(std::move(ids));
    } else {
      return FieldError(name, "must be a string or an array of token ids");
    }
  }
  return out;
}

}  // namespace

void ReadTextOrIds(FieldReader& reader, const char* name, TextOrIdsList* out) {
  reader.ReadValue(name, TextOrIdsSchema, [&](const Json& value) {
    StatusOr<TextOrIdsList> list = ParseTextOrIds(value, reader.Path(name));
    if (!list.ok()) return reader.Fail(list.status());
    *out = *std::move(list);
  });
}

void ReadCompletionRequest(FieldReader& reader, CompletionRequest* request) {
  GenerationOptions& options = request->options;
  ReadGenerationOptions(reader, &options);
  ReadMaxTokens(reader, {"max_tokens", "max_completion_tokens"}, &options);
  ReadLogprobs(reader, &options.sampling);
  reader.Read("suffix", &request->suffix);
  ReadEcho(reader, request);
  ReadBestOf(reader, &options);
  RefuseUnsupported(reader, {{"prompt_embeds"}});
  reader.Require("prompt");
  ReadTextOrIds(reader, "prompt", &request->prompts);
  const int64_t n = std::max({1, options.sampling.n, options.best_of});
  if (static_cast<int64_t>(request->prompts.items.size()) * n > kMaxChoices) {
    reader.Fail("n", fmt::format("makes more than {} choices of these prompts", kMaxChoices));
  }
}

}  // namespace kvasir::api
