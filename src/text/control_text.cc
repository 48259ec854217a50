#include "text/control_text.h"

#include <algorithm>

namespace kvasir::text {

namespace {

// Whether one of the sorted `texts` begins with `beginning` and goes on.
bool AnyGoesOnFrom(const std::vector<std::string>& texts, std::string_view beginning) {
  // Strings that begin so follow each other, the shortest first.
  const auto it = std::upper_bound(texts.begin(), texts.end(), beginning);
  return it != texts.end() && it->starts_with(beginning);
}

std::string Reversed(std::string_view text) { return {text.rbegin(), text.rend()}; }

}  // namespace

ControlTexts::ControlTexts(std::vector<std::string> texts) : texts_(std::move(texts)) {
  std::erase_if(texts_, [](const std::string& text) { return text.empty(); });
  std::sort(texts_.begin(), texts_.end());
  for (const std::string& text : texts_) {
    if (first_bytes_.find(text.front()) == std::string::npos) first_bytes_ += text.front();
    longest_ = std::max(longest_, text.size());
    joined_ += text;
    joined_ += '\xFF';
    reversed_.push_back(Reversed(text));
  }
  std::sort(reversed_.begin(), reversed_.end());
}

// Narrows the sorted texts byte by byte to those that begin as `text` does. Of these the shortest
// comes first, so it alone can end here.
size_t ControlTexts::LongestAt(std::string_view text) const {
  size_t longest = 0;
  auto first = texts_.begin();
  auto last = texts_.end();
  for (size_t i = 0; i < text.size() && i < longest_; ++i) {
    const auto before = [i](const std::string& t, unsigned char c) {
      return t.size() <= i || static_cast<unsigned char>(t[i]) < c;
    };
    const auto after = [i](unsigned char c, const std::string& t) {
      return t.size() > i && static_cast<unsigned char>(t[i]) > c;
    };
    const auto byte = static_cast<unsigned char>(text[i]);
    first = std::lower_bound(first, last, byte, before);
    last = std::upper_bound(first, last, byte, after);
    if (first == last) break;
    if (first->size() == i + 1) longest = i + 1;
  }
  return longest;
}

size_t ControlTexts::BeginningThatEndsOne(std::string_view text) const {
  for (size_t size = std::min(text.size() + 1, longest_); size-- > 1;) {
    if (AnyGoesOnFrom(reversed_, Reversed(text.substr(0, size)))) return size;
  }
  return 0;
}

size_t ControlTexts::EndThatBeginsOne(std::string_view text) const {
  for (size_t size = std::min(text.size() + 1, longest_); size-- > 1;) {
    if (AnyGoesOnFrom(texts_, text.substr(text.size() - size))) return size;
  }
  return 0;
}

bool ControlTexts::InsideOne(std::string_view text) const {
  if (text.empty() || text.size() >= longest_) return false;
  return joined_.find(text) != std::string::npos &&
         !std::binary_search(texts_.begin(), texts_.end(), text);
}

std::vector<ControlTexts::Range> ControlTexts::Find(std::string_view text, bool whole_only) const {
  std::vector<Range> ranges;
  if (!whole_only && InsideOne(text)) return {{0, text.size()}};
  if (!whole_only) {
    if (const size_t size = BeginningThatEndsOne(text)) ranges.emplace_back(0, size);
  }
  size_t at = text.find_first_of(first_bytes_);
  while (at != std::string_view::npos) {
    const size_t size = LongestAt(text.substr(at));
    if (size > 0) ranges.emplace_back(at, at + size);
    at = text.find_first_of(first_bytes_, at + std::max<size_t>(size, 1));
  }
  if (!whole_only) {
    if (const size_t size = EndThatBeginsOne(text)) {
      ranges.emplace_back(text.size() - size, text.size());
    }
  }
  std::sort(ranges.begin(), ranges.end());
  std::vector<Range> apart;
  for (const Range& range : ranges) {
    if (!apart.empty() && range.first < apart.back().second) {
      apart.back().second = std::max(apart.back().second, range.second);
    } else {
      apart.push_back(range);
    }
  }
  return apart;
}

}  // namespace kvasir::text
