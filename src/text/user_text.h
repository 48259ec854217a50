// Keeps what users write apart from what a template writes. Before rendering, the parts of the
// users' strings that spell control tokens give way to single private-use characters that occur
// nowhere in the input; after it they come back, as literal pieces. A rendering without such parts
// is the same byte for byte.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/control_text.h"
#include "text/tokenizer.h"

namespace kvasir::text {

// For one rendering; not thread-safe. `controls` and `source` must outlive it.
class UserTextMarker {
 public:
  // `source` is the template. A short word that it quotes (a role, a type) is part of its language
  // and is marked only where it spells a whole control token.
  UserTextMarker(const ControlTexts& controls, std::string_view source);

  // To be called for every value before the first Mark: private-use characters that occur can't be
  // marks. InvalidArgument, naming `field`, for invalid UTF-8 and for absurd nesting.
  Status NoteUsed(std::string_view field, const nlohmann::ordered_json& value);

  // Marks all strings of `value`, keys too.
  Status Mark(nlohmann::ordered_json& value);

  // A private-use character that is in no value and stands for nothing.
  StatusOr<std::string> NewMark();

  // The rendering in pieces.
  std::vector<TextPiece> Restore(std::string_view rendered) const;

 private:
  Status NoteUsed(std::string_view field, const nlohmann::ordered_json& value, int depth);
  void NoteUsedText(std::string_view text);
  Status MarkKeys(nlohmann::ordered_json& object);
  Status MarkString(std::string& text, bool is_key);
  bool IsTemplateWord(std::string_view text, bool is_key) const;
  StatusOr<char32_t> MarkOf(std::string_view literal);
  StatusOr<char32_t> NextUnused();

  const ControlTexts& controls_;
  std::string_view source_;
  absl::flat_hash_set<char32_t> used_;
  char32_t next_;
  absl::flat_hash_map<std::string, char32_t> mark_of_;
  absl::flat_hash_map<char32_t, std::string> literal_of_;
};

}  // namespace kvasir::text
