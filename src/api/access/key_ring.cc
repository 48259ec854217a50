#include "api/access/key_ring.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <set>
#include <utility>

namespace kvasir::api {
namespace {

// No salt that an operator can write begins with this byte, which is not UTF-8.
constexpr char kOwnSalt[] = "\xff";

std::shared_ptr<const Caller> MakeCaller(const ApiKey& key, bool salt_per_key) {
  auto caller = std::make_shared<Caller>();
  caller->name = key.name;
  caller->priority = key.priority;
  caller->cache_salt = key.cache_salt;
  if (salt_per_key && key.cache_salt.empty()) caller->cache_salt = kOwnSalt + key.name;
  if (key.limits.any()) caller->budget = std::make_shared<Budget>(key.name, key.limits);
  return caller;
}

}  // namespace

std::string KeyDigest(std::string_view key) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest);
  return {reinterpret_cast<const char*>(digest), sizeof(digest)};
}

StatusOr<KeyRing> KeyRing::Make(const KeyRingOptions& options) {
  std::vector<ApiKey> keys;
  for (const std::string& key : options.plain_keys) {
    const std::string name = keys.empty() ? "default" : fmt::format("default-{}", keys.size() + 1);
    keys.push_back({.name = name, .digest = KeyDigest(key)});
  }
  keys.insert(keys.end(), options.keys.begin(), options.keys.end());
  KeyRing ring;
  std::set<std::string> names;
  std::set<std::string> digests;
  for (const ApiKey& key : keys) {
    if (key.digest == KeyDigest("")) {  // what a request without a key would have
      return absl::InvalidArgumentError(
          fmt::format("api keys: the key of '{}' is empty", key.name));
    }
    if (!names.insert(key.name).second) {
      return absl::InvalidArgumentError(
          fmt::format("api keys: the name '{}' is given twice", key.name));
    }
    if (!digests.insert(key.digest).second) {
      return absl::InvalidArgumentError(
          fmt::format("api keys: the key of '{}' is given twice", key.name));
    }
    ring.entries_.push_back({key.digest, MakeCaller(key, options.salt_per_key)});
  }
  return ring;
}

std::shared_ptr<const Caller> KeyRing::Find(std::string_view key) const {
  // Keys are compared as digests: equal lengths, and all of them each time.
  const std::string digest = KeyDigest(key);
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) found = &entry;
  }
  return found == nullptr ? nullptr : found->caller;
}

}  // namespace kvasir::api
