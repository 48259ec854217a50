// A 128-bit hash value: the identity of a KV block (see kv/block_hash.h for how it is computed).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <string>

namespace kvasir {

struct Hash128 {
  std::array<uint8_t, 16> bytes{};

  friend auto operator<=>(const Hash128&, const Hash128&) = default;
  // As two words: what is compared by the default calls memcmp.
  friend bool operator==(const Hash128& a, const Hash128& b) {
    uint64_t x[2], y[2];
    std::memcpy(x, a.bytes.data(), sizeof(x));
    std::memcpy(y, b.bytes.data(), sizeof(y));
    return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
  }

  // Lower-case hexadecimal, 32 characters.
  std::string Hex() const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    for (uint8_t b : bytes) {
      out += kDigits[b >> 4];
      out += kDigits[b & 15];
    }
    return out;
  }

  // The bytes are already uniformly distributed, so any 8 of them are a table hash.
  template <typename H>
  friend H AbslHashValue(H h, const Hash128& v) {
    uint64_t low;
    std::memcpy(&low, v.bytes.data(), sizeof(low));
    return H::combine(std::move(h), low);
  }
};

}  // namespace kvasir
