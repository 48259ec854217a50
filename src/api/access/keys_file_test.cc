#include "api/access/keys_file.h"

#include <gtest/gtest.h>

namespace kvasir::api {
namespace {

TEST(KeysFileTest, ReadsAllOfAKey) {
  const auto keys = ParseKeys(R"(
[[keys]]
name = "batch"
key = "secret"
priority = -3
requests_per_minute = 60
tokens_per_minute = 100_000
max_concurrent = 4
cache_salt = "team"

[[keys]]
name = "hashed"
key_sha256 = "2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B"
)",
                              "f");
  ASSERT_TRUE(keys.ok()) << keys.status();
  ASSERT_EQ(keys->size(), 2u);
  const ApiKey& batch = (*keys)[0];
  EXPECT_EQ(batch.name, "batch");
  EXPECT_EQ(batch.digest, KeyDigest("secret"));
  EXPECT_EQ(batch.priority, -3);
  EXPECT_EQ(batch.limits.requests_per_minute, 60);
  EXPECT_EQ(batch.limits.tokens_per_minute, 100000);
  EXPECT_EQ(batch.limits.max_concurrent, 4);
  EXPECT_EQ(batch.cache_salt, "team");
  const ApiKey& hashed = (*keys)[1];
  EXPECT_EQ(hashed.digest, KeyDigest("secret"));
  EXPECT_EQ(hashed.priority, std::nullopt);
  EXPECT_FALSE(hashed.limits.any());
}

TEST(KeysFileTest, NamesFileLineAndField) {
  const auto error = [](const std::string& text) {
    return std::string(ParseKeys(text, "f.toml").status().message());
  };
  const std::string head = "[[keys]]\nname = \"a\"\nkey = \"k\"\n";
  EXPECT_EQ(error(head + "priority = 1.5"),
            "f.toml: line 4: keys[0].priority: must be a whole number from -2147483648 to "
            "2147483647");
  EXPECT_EQ(error(head + "max_concurrent = 0"),
            "f.toml: line 4: keys[0].max_concurrent: must be a whole number from 1 to "
            "1099511627776");
  EXPECT_EQ(error(head + "\n" + head + "tpm = 1"), "f.toml: line 8: keys[1].tpm: is not known");
  EXPECT_EQ(error(head + "cache_salt = ''"),
            "f.toml: line 4: keys[0].cache_salt: must be a string that is not empty");
  EXPECT_EQ(error(head + "key_sha256 = \"00\""),
            "f.toml: line 1: keys[0].key: give either key or key_sha256");
  EXPECT_EQ(error("[[keys]]\nname = \"a\"\nkey_sha256 = \"00\""),
            "f.toml: line 3: keys[0].key_sha256: must be 64 hexadecimal digits");
  EXPECT_EQ(error("[[keys]]\nkey = \"k\""), "f.toml: line 1: keys[0].name: is missing");
  EXPECT_EQ(error("[[keys]]\nname = \"a\""),
            "f.toml: line 1: keys[0].key: give either key or key_sha256");
  EXPECT_EQ(error("[[keys]]\nname = \"a\\n\"\nkey = \"k\""),
            "f.toml: line 1: keys[0].name: must be at most 128 printable bytes");
  EXPECT_EQ(error("\nkees = 1"), "f.toml: line 2: unknown key 'kees'");
  EXPECT_EQ(error("keys = 1"), "f.toml: line 1: keys: must be written as [[keys]] tables");
  EXPECT_EQ(error("keys = [1]"), "f.toml: line 1: keys: must be written as [[keys]] tables");
  EXPECT_EQ(error(""), "f.toml: no [[keys]]");
  EXPECT_EQ(error("\n[[keys]").substr(0, 15), "f.toml: line 2:");
  EXPECT_EQ(ReadKeysFile("/nonexistent").status().message(), "cannot read /nonexistent");
}

}  // namespace
}  // namespace kvasir::api
