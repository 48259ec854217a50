#include "api/protocol/generation_fields.h"

#include "api/protocol/constraint_fields.h"
#include "api/protocol/sampling_fields.h"

namespace kvasir::api {
namespace {

bool AsksForNothing(const Json& value, const Json& harmless) {
  if (value.is_boolean()) return !value.get<bool>() || value == harmless;
  if (value.is_array() || value.is_object() || value.is_string()) {
    return value.empty() || value == harmless;
  }
  return value == harmless;
}

void ReadStreamOptions(FieldReader& reader, GenerationOptions* options) {
  const bool given = reader.ReadObject("stream_options", [&](FieldReader& inner) {
    inner.Read("include_usage", &options->include_usage);
    inner.Read("continuous_usage_stats", &options->continuous_usage);
  });
  if (given && !options->stream) reader.Fail("stream_options", "needs stream to be true");
}

void ReadBeams(FieldReader& reader, GenerationOptions* options) {
  reader.Read("use_beam_search", &options->beam_search);
  reader.Read("length_penalty", &options->length_penalty, {-10, 10});
  reader.Read("early_stopping", &options->early_stopping);
  if (!options->beam_search && options->length_penalty != 1.0f) {
    reader.Fail("length_penalty", "needs use_beam_search to be true");
  }
  if (!options->beam_search && options->early_stopping) {
    reader.Fail("early_stopping", "needs use_beam_search to be true");
  }
}

}  // namespace

void RefuseUnsupported(FieldReader& reader, std::initializer_list<Unsupported> fields) {
  for (const Unsupported& u : fields) {
    const Json* value = reader.Get(u.field);
    if (value == nullptr || AsksForNothing(*value, u.harmless)) continue;
    return reader.Fail(u.field, "is not supported by this server");
  }
}

void ReadTruncation(FieldReader& reader, std::optional<int32_t>* truncate) {
  reader.Read("truncate_prompt_tokens", truncate, {.min = -1});
  if (*truncate == 0) reader.Fail("truncate_prompt_tokens", "must be positive, or -1");
}

void ReadMaxTokens(FieldReader& reader, std::initializer_list<const char*> spellings,
                   GenerationOptions* options) {
  for (const char* field : spellings) {
    int32_t tokens = 0;
    reader.Read(field, &tokens, {.min = 0});
    if (options->max_tokens || !reader.Has(field)) continue;
    options->max_tokens = tokens;
    options->max_tokens_field = field;
  }
}

void ReadGenerationOptions(FieldReader& reader, GenerationOptions* options) {
  reader.Read("model", &options->model);
  reader.Read("stream", &options->stream);
  ReadStreamOptions(reader, options);
  ReadSampling(reader, options);
  ReadBeams(reader, options);
  ReadTruncation(reader, &options->truncate_prompt);
  ReadConstraint(reader, options);
  reader.Read("include_stop_str_in_output", &options->include_stop);
  reader.Read("skip_special_tokens", &options->skip_special_tokens);
  reader.Read("add_special_tokens", &options->add_special_tokens);
  reader.Read("priority", &options->priority);
  reader.Read("cache_salt", &options->cache_salt);
  reader.Read("return_token_ids", &options->return_token_ids);
  reader.Read("prompt_logprobs", &options->prompt_logprobs, {-1, kMaxTopLogprobs});
  RefuseUnsupported(reader, {{"logits_processors"}});
}

}  // namespace kvasir::api
