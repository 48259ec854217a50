// The fields by which clients constrain an answer: OpenAI's response_format, vLLM's
// structured_outputs and guided_*, SGLang's json_schema, regex and ebnf.
#pragma once

#include <absl/functional/function_ref.h>

#include <string>

#include "api/protocol/fields.h"
#include "api/protocol/request.h"
#include "core/constraint.h"

namespace kvasir::api {

// Two constraints in one request are an error of the second field.
void ReadConstraint(FieldReader& reader, GenerationOptions* options);

// The text.format of /v1/responses: response_format with the schema's fields beside the type.
void ReadTextFormat(FieldReader& reader, const char* name, GenerationOptions* options);

// For protocols with names of their own: the fields of `reader`, each a constraint, where they are
// there, put into `options`. Both outlive it.
class ConstraintFields {
 public:
  ConstraintFields(FieldReader& reader, GenerationOptions* options)
      : reader_(reader), options_(options) {}

  void Schema(const char* name);
  void Regex(const char* name);
  void Grammar(const char* name);
  void Choice(const char* name);
  void JsonObject(const char* name);        // a boolean
  void AnyObject(const std::string& path);  // any JSON object, asked for by what stands there

 private:
  void Text(const char* name, absl::FunctionRef<StatusOr<Constraint>(const std::string&)> make);
  void Found(const std::string& path, StatusOr<Constraint> constraint);

  FieldReader& reader_;
  GenerationOptions* options_;
};

}  // namespace kvasir::api
