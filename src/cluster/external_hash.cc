#include "cluster/external_hash.h"

#include <algorithm>

namespace kvasir::cluster {

ExternalHash::ExternalHash(const Hash128& hash) : size_(static_cast<uint8_t>(hash.bytes.size())) {
  std::copy(hash.bytes.begin(), hash.bytes.end(), bytes_.begin());
}

ExternalHash::ExternalHash(uint64_t value) : size_(sizeof(value)) {
  for (size_t i = 0; i < sizeof(value); ++i) {
    bytes_[i] = static_cast<uint8_t>(value >> (56 - 8 * i));
  }
}

StatusOr<ExternalHash> ExternalHash::FromBytes(absl::Span<const uint8_t> bytes) {
  if (bytes.empty() || bytes.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a hash of ", bytes.size(), " bytes"));
  }
  ExternalHash hash;
  std::copy(bytes.begin(), bytes.end(), hash.bytes_.begin());
  hash.size_ = static_cast<uint8_t>(bytes.size());
  return hash;
}

uint64_t ExternalHash::Low64() const {
  uint64_t value = 0;
  for (size_t i = size_ - std::min<size_t>(size_, sizeof(value)); i < size_; ++i) {
    value = value << 8 | bytes_[i];
  }
  return value;
}

}  // namespace kvasir::cluster
