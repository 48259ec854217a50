#include "cluster/external_hash.h"

#include <gtest/gtest.h>

#include <vector>

namespace kvasir::cluster {
namespace {

TEST(ExternalHash, OfBytesIsTheIntegerOfTheLastEight) {
  const std::vector<uint8_t> bytes = {9, 9, 1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(ExternalHash::FromBytes(bytes)->Low64(), 0x0102030405060708u);
  EXPECT_EQ(ExternalHash(uint64_t{77}).Low64(), 77u);
  EXPECT_EQ(ExternalHash::FromBytes(std::vector<uint8_t>{1, 2})->Low64(), 0x0102u);
  EXPECT_FALSE(ExternalHash::FromBytes({}).ok());
  EXPECT_FALSE(ExternalHash::FromBytes(std::vector<uint8_t>(33)).ok());
}

}  // namespace
}  // namespace kvasir::cluster
