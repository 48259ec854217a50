// The file of API keys (--api-keys-file), TOML:
//
//   [[keys]]
//   name = "batch"               # what logs call it
//   key = "sk-..."               # or key_sha256, its SHA-256 in hex digits
//   priority = 10                # the soonest (lowest) its requests may ask for; they get it
//   unless
//                                # they ask for a later one
//   requests_per_minute = 60
//   tokens_per_minute = 100000   # prompt and output
//   max_concurrent = 4
//   cache_salt = "team-a"        # keys with the same one share cached prefixes
//
// All but the name and the key may be left out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/access/key_ring.h"
#include "base/status.h"

namespace kvasir::api {

// Errors name the file, the line and the field. A file without keys is one.
StatusOr<std::vector<ApiKey>> ReadKeysFile(const std::string& path);

// The same of a text; `path` names it in errors.
StatusOr<std::vector<ApiKey>> ParseKeys(std::string_view text, const std::string& path);

}  // namespace kvasir::api
