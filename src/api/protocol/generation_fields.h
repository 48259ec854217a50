// The fields that all requests for text have in common.
#pragma once

#include <initializer_list>
#include <optional>

#include "api/protocol/fields.h"
#include "api/protocol/request.h"

namespace kvasir::api {

// Of chat and text completions: all of GenerationOptions but the tokens' limit and logprobs, whose
// fields differ.
void ReadGenerationOptions(FieldReader& reader, GenerationOptions* options);

// The first of the spellings that is there counts.
void ReadMaxTokens(FieldReader& reader, std::initializer_list<const char*> spellings,
                   GenerationOptions* options);

// truncate_prompt_tokens
void ReadTruncation(FieldReader& reader, std::optional<int32_t>* truncate);

inline constexpr int32_t kMaxTopLogprobs = 20;

// Fields that would change the answer and that this server does not implement: refused by name
// unless they are absent, null, false, empty, or the one value that asks for nothing.
struct Unsupported {
  const char* field;
  Json harmless = nullptr;
};
void RefuseUnsupported(FieldReader& reader, std::initializer_list<Unsupported> fields);

}  // namespace kvasir::api
