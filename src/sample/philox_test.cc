#include "sample/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace kvasir::sample {
namespace {

// The vectors of Random123's kat_vectors file.
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, NoiseDiffersBySeedChoiceAndPosition) {
  std::set<uint64_t> seen;
  for (uint64_t seed : {0ull, 1ull, 1ull << 32}) {
    for (int32_t choice = 0; choice < 4; ++choice) {
      for (int64_t position : {0ll, 1ll, 1ll << 32}) {
        EXPECT_TRUE(seen.insert(Noise(seed, choice, position)).second);
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::sample
