// Traces for tests: conversations that grow, over prefixes that some share.
#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "sim/trace.h"

namespace kvasir::sim {

inline Trace RandomTrace(uint32_t seed, int32_t requests) {
  constexpr int32_t kBlock = 512;
  std::mt19937 random(seed);
  int64_t next_id = 0;
  const auto new_block = [&] {
    Hash128 hash;
    std::memcpy(hash.bytes.data(), &++next_id, sizeof(next_id));
    return hash;
  };
  std::vector<std::vector<Hash128>> conversations(1 + requests / 8);
  Trace trace{.block_tokens = kBlock};
  TimePoint now{};
  for (int32_t i = 0; i < requests; ++i) {
    now += std::chrono::milliseconds(random() % 1000);
    std::vector<Hash128>& blocks = conversations[random() % conversations.size()];
    if (blocks.empty()) {
      const auto& other = conversations[random() % conversations.size()];
      blocks.assign(other.begin(), other.begin() + static_cast<int64_t>(other.size() / 3));
    }
    for (uint32_t n = 1 + random() % 6; n > 0; --n) blocks.push_back(new_block());
    const auto size = static_cast<int64_t>(blocks.size());
    trace.requests.push_back(
        {.arrival = now,
         .input_tokens = size * kBlock - static_cast<int64_t>(random() % kBlock),
         .output_tokens = static_cast<int64_t>(random() % 500),
         .blocks = blocks});
    if (size > 40) blocks.clear();
  }
  return trace;
}

}  // namespace kvasir::sim
