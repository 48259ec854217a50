// The one identity of a KV block, everywhere: engine, prefix index, events, router, tiers, wire.
//
// The unit is 16 tokens: h = the first 16 bytes of SHA-256(parent || ids as 32-bit little endian).
// The parent of the first unit is the cache root, the same function of the length-prefixed fields
// that decide the bits of the KV: weights fingerprint, numerics id, adapter and cache salt. A
// larger block bears the hash of its last unit.
#pragma once

#include <absl/types/span.h>

#include <string_view>
#include <vector>

#include "base/hash128.h"
#include "core/sampling_params.h"

namespace kvasir {

inline constexpr int32_t kHashUnitTokens = 16;

Hash128 CacheRoot(std::string_view weights_fingerprint, std::string_view numerics_id,
                  std::string_view adapter, std::string_view cache_salt);

// `ids` holds exactly kHashUnitTokens tokens.
Hash128 HashUnit(const Hash128& parent, absl::Span<const TokenId> ids);

// The hashes of all full units of `ids`, in order; a rest of fewer than 16 tokens has none.
std::vector<Hash128> HashUnits(const Hash128& root, absl::Span<const TokenId> ids);

}  // namespace kvasir
