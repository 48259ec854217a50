// The fields by which clients constrain an answer: OpenAI's response_format, vLLM's
// structured_outputs and guided_*, SGLang's json_schema, regex and ebnf.
#pragma once

#include "api/protocol/json.h"
#include "api/protocol/request.h"

namespace kvasir::api {

// Two constraints in one request are an error of the second field.
void ReadConstraint(FieldReader& reader, GenerationOptions* options);

}  // namespace kvasir::api
