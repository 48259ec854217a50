#include "text/user_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "text/utf8.h"

namespace kvasir::text {
namespace {

using nlohmann::ordered_json;

// The two supplementary private-use planes. Their characters have no case and are no space, so
// filters leave them alone, and one character can't be cut in two.
constexpr char32_t kFirstMark = 0xF0000;
constexpr char32_t kEndOfMarks = 0x10FFFE;

// What the parsers below can nest without danger to the stack.
constexpr int kMaxDepth = 64;

bool IsPrivateUse(char32_t c) { return c >= kFirstMark && c < kEndOfMarks; }

// Calls visit(character, its bytes) for each valid private-use character, and other(bytes) for the
// text between them.
template <typename Visit, typename Other>
void ForEachPrivateUse(std::string_view text, Visit visit, Other other) {
  while (!text.empty()) {
    // Their first byte is 0xF3 or 0xF4.
    const size_t at = std::min(text.find_first_of("\xF3\xF4"), text.size());
    if (at > 0) other(text.substr(0, at));
    text.remove_prefix(at);
    if (text.empty()) return;
    const Utf8Sequence c = FirstSequence(text);
    if (c.kind == Utf8Sequence::kValid && IsPrivateUse(c.code_point)) {
      visit(c.code_point, text.substr(0, c.length));
    } else {
      other(text.substr(0, c.length));
    }
    text.remove_prefix(c.length);
  }
}

bool Quotes(std::string_view source, std::string_view word) {
  return source.find(fmt::format("'{}'", word)) != std::string_view::npos ||
         source.find(fmt::format("\"{}\"", word)) != std::string_view::npos;
}

}  // namespace

UserTextMarker::UserTextMarker(const ControlTexts& controls, std::string_view source)
    : controls_(controls), source_(source), next_(kFirstMark) {
  NoteUsedText(source);
}

void UserTextMarker::NoteUsedText(std::string_view text) {
  ForEachPrivateUse(
      text, [this](char32_t c, std::string_view) { used_.insert(c); }, [](std::string_view) {});
}

Status UserTextMarker::NoteUsed(std::string_view field, const ordered_json& value) {
  return NoteUsed(field, value, 0);
}

Status UserTextMarker::NoteUsed(std::string_view field, const ordered_json& value, int depth) {
  if (depth > kMaxDepth) {
    return absl::InvalidArgumentError(
        fmt::format("{}: nested more than {} levels deep", field, kMaxDepth));
  }
  const auto note = [&](const std::string& text) -> Status {
    if (!IsValidUtf8(text)) {
      return absl::InvalidArgumentError(fmt::format("{}: not valid UTF-8", field));
    }
    NoteUsedText(text);
    return absl::OkStatus();
  };
  if (value.is_string()) return note(value.get_ref<const std::string&>());
  if (value.is_array()) {
    for (const ordered_json& item : value) {
      KVASIR_RETURN_IF_ERROR(NoteUsed(field, item, depth + 1));
    }
  }
  if (value.is_object()) {
    for (const auto& [key, item] : value.items()) {
      KVASIR_RETURN_IF_ERROR(note(key));
      KVASIR_RETURN_IF_ERROR(NoteUsed(field, item, depth + 1));
    }
  }
  return absl::OkStatus();
}

Status UserTextMarker::Mark(ordered_json& value) {
  if (value.is_string()) return MarkString(value.get_ref<std::string&>(), /*is_key=*/false);
  if (value.is_object()) KVASIR_RETURN_IF_ERROR(MarkKeys(value));
  if (value.is_structured()) {
    for (ordered_json& item : value) KVASIR_RETURN_IF_ERROR(Mark(item));
  }
  return absl::OkStatus();
}

Status UserTextMarker::MarkKeys(ordered_json& object) {
  ordered_json::object_t marked;
  bool changed = false;
  for (auto& [key, item] : object.get_ref<ordered_json::object_t&>()) {
    std::string new_key = key;
    KVASIR_RETURN_IF_ERROR(MarkString(new_key, /*is_key=*/true));
    changed |= new_key != key;
    marked.emplace_back(std::move(new_key), item);
  }
  if (changed) object = std::move(marked);
  return absl::OkStatus();
}

bool UserTextMarker::IsTemplateWord(std::string_view text, bool is_key) const {
  static constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                             "assistant", "tool",      "function"};
  constexpr size_t kLongestWord = 32;
  if (text.size() > kLongestWord) return false;
  if (std::find(kRoles.begin(), kRoles.end(), text) != kRoles.end()) return true;
  // A template also reaches keys as attributes.
  return is_key ? source_.find(text) != std::string_view::npos : Quotes(source_, text);
}

Status UserTextMarker::MarkString(std::string& text, bool is_key) {
  const std::vector<ControlTexts::Range> ranges =
      controls_.Find(text, /*whole_only=*/IsTemplateWord(text, is_key));
  if (ranges.empty()) return absl::OkStatus();
  std::string marked;
  size_t done = 0;
  for (const auto& [begin, end] : ranges) {
    marked.append(text, done, begin - done);
    KVASIR_ASSIGN_OR_RETURN(const char32_t mark,
                            MarkOf(std::string_view(text).substr(begin, end - begin)));
    AppendUtf8(mark, marked);
    done = end;
  }
  marked.append(text, done);
  text = std::move(marked);
  return absl::OkStatus();
}

StatusOr<char32_t> UserTextMarker::MarkOf(std::string_view literal) {
  const auto [it, is_new] = mark_of_.try_emplace(std::string(literal), 0);
  if (!is_new) return it->second;
  KVASIR_ASSIGN_OR_RETURN(it->second, NextUnused());
  literal_of_.emplace(it->second, literal);
  return it->second;
}

StatusOr<std::string> UserTextMarker::NewMark() {
  KVASIR_ASSIGN_OR_RETURN(const char32_t mark, NextUnused());
  std::string text;
  AppendUtf8(mark, text);
  return text;
}

StatusOr<char32_t> UserTextMarker::NextUnused() {
  while (used_.contains(next_)) ++next_;
  if (next_ >= kEndOfMarks) {
    return absl::InvalidArgumentError("messages: no private-use character is left unused");
  }
  return next_++;
}

std::vector<TextPiece> UserTextMarker::Restore(std::string_view rendered) const {
  std::vector<TextPiece> pieces;
  const auto append = [&pieces](std::string_view text, bool literal) {
    if (pieces.empty() || pieces.back().literal != literal) pieces.push_back({{}, literal});
    pieces.back().text += text;
  };
  ForEachPrivateUse(
      rendered,
      [&](char32_t c, std::string_view bytes) {
        const auto it = literal_of_.find(c);
        if (it == literal_of_.end()) {
          append(bytes, false);
        } else {
          append(it->second, true);
        }
      },
      [&](std::string_view text) { append(text, false); });
  return pieces;
}

}  // namespace kvasir::text
