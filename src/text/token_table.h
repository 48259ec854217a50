// What every token of a vocabulary stands for, by id.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/sampling_params.h"

namespace kvasir::text {

// Immutable once built. Thread-safe then.
class TokenTable {
 public:
  struct Entry {
    std::string bytes;
    bool special = false;
  };
  TokenTable() = default;
  // entries[id]; an id that the vocabulary leaves out has no bytes.
  explicit TokenTable(const std::vector<Entry>& entries);

  int32_t size() const { return static_cast<int32_t>(special_.size()); }
  // Empty for an unknown id.
  std::string_view Bytes(TokenId id) const;
  bool IsSpecial(TokenId id) const { return Has(id) && special_[id]; }
  // Texts of the control tokens, longest first.
  const std::vector<std::string>& SpecialTexts() const { return special_texts_; }

 private:
  bool Has(TokenId id) const { return id >= 0 && id < size(); }

  std::string bytes_;           // of all tokens, joined
  std::vector<uint32_t> ends_;  // [id]: where its bytes end
  std::vector<bool> special_;   // [id]
  std::vector<std::string> special_texts_;
};

}  // namespace kvasir::text
