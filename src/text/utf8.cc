#include "text/utf8.h"

#include <algorithm>

namespace kvasir::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What may follow a lead byte: so many more bytes, the first of them within [low, high].
struct Lead {
  int following;
  uint8_t low;
  uint8_t high;
};

// The well-formed sequences of the Unicode standard (table 3-7). Negative: no lead byte.
Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {0, 0, 0};
  if (byte < 0xC2) return {-1, 0, 0};
  if (byte < 0xE0) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte < 0xF0) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte < 0xF4) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {-1, 0, 0};
}

}  // namespace

Utf8Sequence FirstSequence(std::string_view text) {
  if (text.empty()) return {};
  const uint8_t first = static_cast<uint8_t>(text[0]);
  const Lead lead = LeadOf(first);
  if (lead.following < 0) return {Utf8Sequence::kInvalid, 1};
  char32_t code_point = lead.following == 0 ? first : first & (0x3F >> lead.following);
  for (int i = 1; i <= lead.following; ++i) {
    if (static_cast<size_t>(i) == text.size()) return {Utf8Sequence::kIncomplete, i};
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.low : 0x80;
    const uint8_t high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {Utf8Sequence::kInvalid, i};
    code_point = (code_point << 6) | (byte & 0x3F);
  }
  return {Utf8Sequence::kValid, lead.following + 1, code_point};
}

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Sequence sequence = FirstSequence(text);
    if (sequence.kind != Utf8Sequence::kValid) return false;
    text.remove_prefix(sequence.length);
  }
  return true;
}

void AppendUtf8(char32_t code_point, std::string& out) {
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
    return;
  }
  const int following = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
  out += static_cast<char>((0xFF << (7 - following)) | (code_point >> (6 * following)));
  for (int i = following - 1; i >= 0; --i) {
    out += static_cast<char>(0x80 | ((code_point >> (6 * i)) & 0x3F));
  }
}

std::string Utf8Repair::Add(std::string_view bytes) {
  held_.append(bytes);
  std::string out;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Sequence sequence = FirstSequence(rest);
    if (sequence.kind == Utf8Sequence::kIncomplete) break;
    out.append(sequence.kind == Utf8Sequence::kValid ? rest.substr(0, sequence.length)
                                                     : kReplacement);
    rest.remove_prefix(sequence.length);
  }
  held_.erase(0, held_.size() - rest.size());
  return out;
}

std::string Utf8Repair::Flush() {
  const bool broken = !held_.empty();
  held_.clear();
  return broken ? std::string(kReplacement) : std::string();
}

}  // namespace kvasir::text
