#include "api/protocol/constraint_fields.h"

#include <fmt/format.h>

#include <utility>

#include "api/protocol/error.h"
#include "grammar/spellings.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxChoices = 4096;

Json SchemaSchema() { return OneOfTypes({"object", "string"}); }
Json TextSchema() { return {{"type", "string"}, {"minLength", 1}}; }
Json ChoicesSchema() {
  Json schema = ArrayOf({{"type", "string"}});
  schema["minItems"] = 1;
  schema["maxItems"] = kMaxChoices;
  return schema;
}

Constraint SchemaConstraint(const Json& schema) {
  return {Constraint::Kind::kJsonSchema, Dump(schema)};
}

StatusOr<Constraint> ChoiceConstraint(const Json& value, const std::string& path) {
  if (!value.is_array() || value.empty()) return FieldError(path, "must be an array of strings");
  if (value.size() > kMaxChoices) {
    return FieldError(path, fmt::format("holds more than {} choices", kMaxChoices));
  }
  std::vector<std::string> choices;
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_string())
      return FieldError(fmt::format("{}[{}]", path, i), "must be a string");
    choices.push_back(value[i].get<std::string>());
  }
  return grammar::OneOf(choices);
}

}  // namespace

void ConstraintFields::Found(const std::string& path, StatusOr<Constraint> constraint) {
  if (options_->constraint) {
    return reader_.Fail(FieldError(
        path,
        fmt::format("contradicts {}: an answer takes one constraint", options_->constraint_field)));
  }
  if (!constraint.ok()) {
    const std::string message(constraint.status().message());
    // An item of a list is named already.
    return reader_.Fail(message.starts_with(path) ? constraint.status()
                                                  : FieldError(path, message));
  }
  options_->constraint = *std::move(constraint);
  options_->constraint_field = path;
}

// An object, or a string that holds one, as some clients send.
void ConstraintFields::Schema(const char* name) {
  reader_.ReadValue(name, SchemaSchema, [&](const Json& value) {
    if (value.is_object()) return Found(reader_.Path(name), SchemaConstraint(value));
    if (!value.is_string()) return reader_.Fail(name, "must be a JSON schema: an object");
    const StatusOr<Json> schema = ParseJsonObject(value.get_ref<const std::string&>());
    if (!schema.ok()) {
      return reader_.Fail(name, "must be a JSON schema: an object or the text of one");
    }
    Found(reader_.Path(name), SchemaConstraint(*schema));
  });
}

void ConstraintFields::Text(const char* name,
                            absl::FunctionRef<StatusOr<Constraint>(const std::string&)> make) {
  reader_.ReadValue(name, TextSchema, [&](const Json& value) {
    if (!value.is_string() || value.get_ref<const std::string&>().empty()) {
      return reader_.Fail(name, "must be a string that is not empty");
    }
    Found(reader_.Path(name), make(value.get_ref<const std::string&>()));
  });
}

void ConstraintFields::Regex(const char* name) {
  Text(name, [](const std::string& text) -> StatusOr<Constraint> {
    return Constraint{Constraint::Kind::kRegex, text};
  });
}

void ConstraintFields::Grammar(const char* name) { Text(name, grammar::FromGrammar); }

void ConstraintFields::Choice(const char* name) {
  reader_.ReadValue(name, ChoicesSchema, [&](const Json& value) {
    Found(reader_.Path(name), ChoiceConstraint(value, reader_.Path(name)));
  });
}

void ConstraintFields::JsonObject(const char* name) {
  bool wanted = false;
  reader_.Read(name, &wanted);
  if (wanted) Found(reader_.Path(name), grammar::AnyJsonObject());
}

void ConstraintFields::AnyObject(const std::string& path) { Found(path, grammar::AnyJsonObject()); }

namespace {

enum class FormatType { kText, kJsonObject, kJsonSchema };

FormatType ReadFormatType(FieldReader& format) {
  FormatType type = FormatType::kText;
  format.Require("type");
  format.ReadWord("type",
                  {{"text", FormatType::kText},
                   {"json_object", FormatType::kJsonObject},
                   {"json_schema", FormatType::kJsonSchema}},
                  &type);
  return type;
}

// A schema with a name, which has no use here. Every schema is enforced, strict or not.
void ReadNamedSchema(FieldReader& reader, const std::string& path, bool wanted,
                     GenerationOptions* options) {
  std::string text;
  bool strict = false;
  if (wanted) reader.Require("name");
  reader.Read("name", &text);
  reader.Read("description", &text);
  reader.Read("strict", &strict);
  GenerationOptions unwanted;
  ConstraintFields fields(reader, wanted ? options : &unwanted);
  fields.Schema("schema");
  if (wanted && reader.ok() && !reader.Has("schema")) fields.AnyObject(path);
}

void ReadResponseFormat(FieldReader& body, GenerationOptions* options) {
  body.ReadObject("response_format", [&](FieldReader& format) {
    const FormatType type = ReadFormatType(format);
    const bool schema = type == FormatType::kJsonSchema;
    if (schema) format.Require("json_schema");
    format.ReadObject("json_schema", [&](FieldReader& reader) {
      ReadNamedSchema(reader, format.Path("json_schema"), schema, options);
    });
    if (type == FormatType::kJsonObject) {
      ConstraintFields(format, options).AnyObject("response_format");
    }
  });
}

void ReadStructuredOutputs(FieldReader& body, GenerationOptions* options) {
  body.ReadObject("structured_outputs", [&](FieldReader& reader) {
    ConstraintFields fields(reader, options);
    fields.Schema("json");
    fields.Regex("regex");
    fields.Choice("choice");
    fields.Grammar("grammar");
    fields.JsonObject("json_object");
    if (reader.Has("structural_tag")) {
      reader.Fail("structural_tag", "is not supported by this server");
    }
  });
}

}  // namespace

void ReadTextFormat(FieldReader& reader, const char* name, GenerationOptions* options) {
  reader.ReadObject(name, [&](FieldReader& format) {
    const FormatType type = ReadFormatType(format);
    ReadNamedSchema(format, reader.Path(name), type == FormatType::kJsonSchema, options);
    if (type == FormatType::kJsonObject) {
      ConstraintFields(format, options).AnyObject(reader.Path(name));
    }
  });
}

void ReadConstraint(FieldReader& reader, GenerationOptions* options) {
  ReadResponseFormat(reader, options);
  ReadStructuredOutputs(reader, options);
  ConstraintFields fields(reader, options);
  fields.Schema("guided_json");
  fields.Regex("guided_regex");
  fields.Choice("guided_choice");
  fields.Grammar("guided_grammar");
  fields.JsonObject("guided_json_object");
  fields.Schema("json_schema");
  fields.Regex("regex");
  fields.Grammar("ebnf");
}

}  // namespace kvasir::api
