#include "text/token_table.h"

#include <algorithm>

namespace kvasir::text {

TokenTable::TokenTable(const std::vector<Entry>& entries) {
  ends_.reserve(entries.size());
  special_.reserve(entries.size());
  for (const Entry& entry : entries) {
    bytes_ += entry.bytes;
    ends_.push_back(static_cast<uint32_t>(bytes_.size()));
    special_.push_back(entry.special);
    if (entry.special && !entry.bytes.empty()) special_texts_.push_back(entry.bytes);
  }
  std::stable_sort(special_texts_.begin(), special_texts_.end(),
                   [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
}

std::string_view TokenTable::Bytes(TokenId id) const {
  if (!Has(id)) return {};
  const uint32_t begin = id == 0 ? 0 : ends_[id - 1];
  return std::string_view(bytes_).substr(begin, ends_[id] - begin);
}

}  // namespace kvasir::text
