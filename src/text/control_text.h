// Finds the texts of control tokens, whole or in part, in other text.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir::text {

// Immutable and thread-safe.
class ControlTexts {
 public:
  explicit ControlTexts(std::vector<std::string> texts);

  // Byte ranges [begin, end) of `text`, in order and apart from each other, that
  //  - spell a control token (of those that overlap, the first; of those the longest), or
  //  - could become one with what stands before or after `text`: the longest end of it that begins
  //    a control token, the longest beginning of it that ends one, or all of it inside one.
  // With `whole_only`, the first kind alone.
  using Range = std::pair<size_t, size_t>;
  std::vector<Range> Find(std::string_view text, bool whole_only) const;

 private:
  size_t LongestAt(std::string_view text) const;
  size_t BeginningThatEndsOne(std::string_view text) const;
  size_t EndThatBeginsOne(std::string_view text) const;
  bool InsideOne(std::string_view text) const;

  std::vector<std::string> texts_;     // sorted
  std::vector<std::string> reversed_;  // each written backwards, sorted
  std::string joined_;                 // with a byte between them that is in no UTF-8
  std::string first_bytes_;            // of the texts, each once
  size_t longest_ = 0;
};

}  // namespace kvasir::text
