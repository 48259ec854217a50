#include "api/protocol/constraint_fields.h"

#include <fmt/format.h>

#include <utility>

#include "api/protocol/error.h"
#include "grammar/spellings.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxChoices = 4096;

Constraint SchemaConstraint(const Json& schema) {
  return {Constraint::Kind::kJsonSchema, Dump(schema)};
}

// Puts constraints that are found into the options, at most one of them.
class Collector {
 public:
  Collector(FieldReader& reader, GenerationOptions* options) : body_(reader), options_(options) {}

  // `field` is the full path of where the constraint was found.
  void Found(const std::string& field, StatusOr<Constraint> constraint) {
    if (!body_.status().ok()) return;
    if (options_->constraint) {
      return Fail(field, fmt::format("contradicts {}: an answer takes one constraint",
                                     options_->constraint_field));
    }
    if (!constraint.ok()) return Fail(field, constraint.status().message());
    options_->constraint = *std::move(constraint);
    options_->constraint_field = field;
  }

  void Fail(const std::string& field, absl::string_view message) {
    body_.Fail(FieldError(field, {message.data(), message.size()}));
  }

  // The readers below take the fields of `object`, where there are any.
  void Schema(const FieldReader& object, const char* name);
  void Regex(const FieldReader& object, const char* name);
  void Grammar(const FieldReader& object, const char* name);
  void Choice(const FieldReader& object, const char* name);
  void JsonObject(const FieldReader& object, const char* name);

 private:
  // Null when there is none, or it is none to go on with.
  const std::string* Text(const FieldReader& object, const char* name);

  FieldReader& body_;
  GenerationOptions* options_;
};

// An object, or a string that holds one, as some clients send.
void Collector::Schema(const FieldReader& object, const char* name) {
  const Json* value = object.Get(name);
  if (value == nullptr) return;
  const std::string path = object.Path(name);
  if (value->is_object()) return Found(path, SchemaConstraint(*value));
  if (!value->is_string()) return Fail(path, "must be a JSON schema: an object");
  const std::string& text = value->get_ref<const std::string&>();
  const StatusOr<Json> schema = ParseJsonObject(text);
  if (!schema.ok()) return Fail(path, "must be a JSON schema: an object or the text of one");
  Found(path, SchemaConstraint(*schema));
}

const std::string* Collector::Text(const FieldReader& object, const char* name) {
  const Json* value = object.Get(name);
  if (value == nullptr) return nullptr;
  if (value->is_string() && !value->get_ref<const std::string&>().empty()) {
    return &value->get_ref<const std::string&>();
  }
  Fail(object.Path(name), "must be a string that is not empty");
  return nullptr;
}

void Collector::Regex(const FieldReader& object, const char* name) {
  if (const std::string* text = Text(object, name)) {
    Found(object.Path(name), Constraint{Constraint::Kind::kRegex, *text});
  }
}

void Collector::Grammar(const FieldReader& object, const char* name) {
  if (const std::string* text = Text(object, name)) {
    Found(object.Path(name), grammar::FromGrammar(*text));
  }
}

void Collector::Choice(const FieldReader& object, const char* name) {
  const Json* value = object.Get(name);
  if (value == nullptr) return;
  const std::string path = object.Path(name);
  if (!value->is_array() || value->empty()) return Fail(path, "must be an array of strings");
  if (value->size() > kMaxChoices) {
    return Fail(path, fmt::format("holds more than {} choices", kMaxChoices));
  }
  std::vector<std::string> choices;
  for (size_t i = 0; i < value->size(); ++i) {
    if (!(*value)[i].is_string()) return Fail(fmt::format("{}[{}]", path, i), "must be a string");
    choices.push_back((*value)[i].get<std::string>());
  }
  Found(path, grammar::OneOf(choices));
}

void Collector::JsonObject(const FieldReader& object, const char* name) {
  const Json* value = object.Get(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return Fail(object.Path(name), "must be a boolean");
  if (value->get<bool>()) Found(object.Path(name), grammar::AnyJsonObject());
}

// {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}
void ReadNamedSchema(const FieldReader& format, Collector& collector) {
  const Json* schema = format.Get("json_schema");
  const std::string path = format.Path("json_schema");
  if (schema == nullptr || !schema->is_object()) {
    return collector.Fail(path, "must be an object with name and schema");
  }
  FieldReader reader(*schema, path);
  const Json* name = reader.Get("name");
  if (name == nullptr || !name->is_string()) {
    return collector.Fail(reader.Path("name"), "must be a string");
  }
  if (reader.Get("schema") == nullptr) {
    return collector.Found(path, grammar::AnyJsonObject());
  }
  collector.Schema(reader, "schema");
}

void ReadResponseFormat(const FieldReader& body, Collector& collector) {
  const Json* format = body.Get("response_format");
  if (format == nullptr) return;
  if (!format->is_object()) return collector.Fail("response_format", "must be an object");
  const FieldReader reader(*format, "response_format");
  const Json* type = reader.Get("type");
  if (type != nullptr && *type == "text") return;
  if (type != nullptr && *type == "json_schema") return ReadNamedSchema(reader, collector);
  if (type != nullptr && *type == "json_object") {
    return collector.Found("response_format", grammar::AnyJsonObject());
  }
  collector.Fail("response_format.type", "must be text, json_object or json_schema");
}

void ReadStructuredOutputs(const FieldReader& body, Collector& collector) {
  const Json* value = body.Get("structured_outputs");
  if (value == nullptr) return;
  if (!value->is_object()) return collector.Fail("structured_outputs", "must be an object");
  const FieldReader reader(*value, "structured_outputs");
  collector.Schema(reader, "json");
  collector.Regex(reader, "regex");
  collector.Choice(reader, "choice");
  collector.Grammar(reader, "grammar");
  collector.JsonObject(reader, "json_object");
  if (reader.Get("structural_tag") != nullptr) {
    collector.Fail("structured_outputs.structural_tag", "is not supported by this server");
  }
}

}  // namespace

void ReadConstraint(FieldReader& reader, GenerationOptions* options) {
  Collector collector(reader, options);
  ReadResponseFormat(reader, collector);
  ReadStructuredOutputs(reader, collector);
  collector.Schema(reader, "guided_json");
  collector.Regex(reader, "guided_regex");
  collector.Choice(reader, "guided_choice");
  collector.Grammar(reader, "guided_grammar");
  collector.JsonObject(reader, "guided_json_object");
  collector.Schema(reader, "json_schema");
  collector.Regex(reader, "regex");
  collector.Grammar(reader, "ebnf");
}

}  // namespace kvasir::api
