// The API keys of a server and whose they are.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/access/caller.h"
#include "base/status.h"

namespace kvasir::api {

// The 32 bytes of the key's SHA-256.
std::string KeyDigest(std::string_view key);

struct ApiKey {
  std::string name;
  std::string digest;  // KeyDigest of the key
  std::optional<int32_t> priority;
  Limits limits;
  std::string cache_salt;
};

struct KeyRingOptions {
  std::vector<std::string> plain_keys;  // called "default", "default-2", ...
  std::vector<ApiKey> keys;
  bool salt_per_key = false;  // a cache salt of its own for each key that has none
};

// Immutable; thread-safe.
class KeyRing {
 public:
  // An empty key, and two of the same name or the same key, are errors.
  static StatusOr<KeyRing> Make(const KeyRingOptions& options);

  bool empty() const { return entries_.empty(); }

  // Null when the key is not one of these. The time that it takes tells nothing of how much of a
  // key was right.
  std::shared_ptr<const Caller> Find(std::string_view key) const;

 private:
  struct Entry {
    std::string digest;
    std::shared_ptr<const Caller> caller;
  };

  std::vector<Entry> entries_;
};

}  // namespace kvasir::api
