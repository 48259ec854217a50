#include "api/access/key_ring.h"

#include <gtest/gtest.h>

namespace kvasir::api {
namespace {

ApiKey Named(std::string name, std::string_view key) {
  return {.name = std::move(name), .digest = KeyDigest(key)};
}

TEST(KeyRingTest, FindsWhoseAKeyIs) {
  ApiKey limited = Named("limited", "c");
  limited.limits.max_concurrent = 1;
  const auto ring = KeyRing::Make({.plain_keys = {"a", "b"}, .keys = {limited}});
  ASSERT_TRUE(ring.ok()) << ring.status();
  EXPECT_EQ(ring->Find("a")->name, "default");
  EXPECT_EQ(ring->Find("a")->budget, nullptr);
  EXPECT_EQ(ring->Find("b")->name, "default-2");
  EXPECT_NE(ring->Find("c")->budget, nullptr);
  EXPECT_EQ(ring->Find("c"), ring->Find("c"));
  for (const char* wrong : {"", "d", "aa", "A"}) EXPECT_EQ(ring->Find(wrong), nullptr);
  EXPECT_TRUE(KeyRing::Make({})->empty());
}

TEST(KeyRingTest, GivesEveryKeyASaltOfItsOwnWhenTold) {
  ApiKey salted = Named("salted", "c");
  salted.cache_salt = "team";
  const KeyRingOptions options{.keys = {Named("a", "a"), Named("b", "b"), salted}};
  EXPECT_EQ(KeyRing::Make(options)->Find("a")->cache_salt, "");
  KeyRingOptions salting = options;
  salting.salt_per_key = true;
  const auto ring = KeyRing::Make(salting);
  EXPECT_NE(ring->Find("a")->cache_salt, "");
  EXPECT_NE(ring->Find("a")->cache_salt, ring->Find("b")->cache_salt);
  EXPECT_EQ(ring->Find("c")->cache_salt, "team");
}

TEST(KeyRingTest, RefusesWhatIsAmbiguous) {
  const auto error = [](KeyRingOptions options) {
    return std::string(KeyRing::Make(options).status().message());
  };
  EXPECT_EQ(error({.plain_keys = {""}}), "api keys: the key of 'default' is empty");
  EXPECT_EQ(error({.keys = {Named("n", "")}}), "api keys: the key of 'n' is empty");
  EXPECT_EQ(error({.plain_keys = {"a"}, .keys = {Named("default", "b")}}),
            "api keys: the name 'default' is given twice");
  EXPECT_EQ(error({.plain_keys = {"a"}, .keys = {Named("b", "a")}}),
            "api keys: the key of 'b' is given twice");
}

}  // namespace
}  // namespace kvasir::api
