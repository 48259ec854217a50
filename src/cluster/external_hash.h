// A block's name in the words of whoever publishes KV events: up to 32 bytes. An integer is read as
// its 8 bytes, big endian. (vLLM sends either a whole digest or the integer of its last 8 bytes.)
#pragma once

#include <absl/types/span.h>

#include <array>
#include <cstdint>
#include <utility>

#include "base/hash128.h"
#include "base/status.h"

namespace kvasir::cluster {

// A value.
class ExternalHash {
 public:
  static constexpr size_t kMaxBytes = 32;

  ExternalHash() = default;
  explicit ExternalHash(const Hash128& hash);
  explicit ExternalHash(uint64_t value);
  // InvalidArgument when there are none or too many.
  static StatusOr<ExternalHash> FromBytes(absl::Span<const uint8_t> bytes);

  absl::Span<const uint8_t> bytes() const { return {bytes_.data(), size_}; }
  // The integer that a publisher of integers would send: the last 8 bytes, big endian.
  uint64_t Low64() const;

  friend bool operator==(const ExternalHash&, const ExternalHash&) = default;

  template <typename H>
  friend H AbslHashValue(H h, const ExternalHash& v) {
    return H::combine(std::move(h), v.bytes());
  }

 private:
  std::array<uint8_t, kMaxBytes> bytes_{};  // zero from size_ on
  uint8_t size_ = 0;
};

}  // namespace kvasir::cluster
