// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel Random
// Numbers: As Easy as 1, 2, 3" (SC 2011): 128 random bits as a pure function of counter and key.
#pragma once

#include <array>
#include <cstdint>

namespace kvasir::sample {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

PhiloxCounter Philox(PhiloxCounter counter, PhiloxKey key);

// The 64 random bits that choose output token `position` (from 0) of choice `choice`.
uint64_t Noise(uint64_t seed, int32_t choice, int64_t position);

}  // namespace kvasir::sample
