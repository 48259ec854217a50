#include "grammar/spellings.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "grammar/ebnf.h"
#include "text/utf8.h"

namespace kvasir::grammar {

Constraint AnyJsonObject() { return {Constraint::Kind::kJsonSchema, R"({"type":"object"})"}; }

StatusOr<Constraint> OneOf(absl::Span<const std::string> choices) {
  if (choices.empty()) return absl::InvalidArgumentError("no choices");
  // One terminal: whichever is a prefix of another may end or go on.
  std::string lark = "start: CHOICE\nCHOICE:";
  for (size_t i = 0; i < choices.size(); ++i) {
    if (!text::IsValidUtf8(choices[i])) {
      return absl::InvalidArgumentError(fmt::format("choice {}: not valid UTF-8", i));
    }
    // Lark's texts are JSON's.
    lark += fmt::format("{} {}", i == 0 ? "" : " |",
                        nlohmann::json(choices[i]).dump(-1, ' ', /*ensure_ascii=*/true));
  }
  return Constraint{Constraint::Kind::kLark, lark + "\n"};
}

StatusOr<Constraint> FromGrammar(std::string_view text) {
  if (text.find("::=") == std::string_view::npos) {
    return Constraint{Constraint::Kind::kLark, std::string(text)};
  }
  KVASIR_ASSIGN_OR_RETURN(std::string lark, EbnfToLark(text));
  return Constraint{Constraint::Kind::kLark, std::move(lark)};
}

StatusOr<std::string> SchemaInLark(std::string_view schema) {
  auto json = nlohmann::ordered_json::parse(schema, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("a schema is a JSON object");
  const nlohmann::ordered_json spaces = {
      {"whitespace_flexible", false}, {"item_separator", ", "}, {"key_separator", ": "}};
  if (!json.contains("x-guidance")) json["x-guidance"] = spaces;
  return "%json " + json.dump();
}

}  // namespace kvasir::grammar
