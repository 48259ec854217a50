#include "api/access/apply_caller.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "api/access/caller.h"

namespace kvasir::api {
namespace {

// What a request can send is UTF-8 and so never begins with this byte: no request of a key without
// a salt can name the prefixes of one that has it. The length keeps the two salts apart.
std::string JoinSalts(const std::string& callers, const std::string& requests) {
  return fmt::format("\xfe{}:{}{}", callers.size(), callers, requests);
}

}  // namespace

void ApplyCaller(const HttpRequest& http, GenerationOptions* options) {
  if (http.caller == nullptr) return;
  const Caller& caller = *http.caller;
  if (caller.priority) {
    options->priority = std::max(options->priority.value_or(*caller.priority), *caller.priority);
  }
  if (!caller.cache_salt.empty()) {
    options->cache_salt = JoinSalts(caller.cache_salt, options->cache_salt);
  }
}

Status ReserveTokens(const HttpRequest& http,
                     const std::vector<std::shared_ptr<const Request>>& requests,
                     const GenerationOptions& options, TimePoint now) {
  if (http.visit == nullptr) return absl::OkStatus();
  int64_t tokens = 0;
  for (const auto& request : requests) {
    tokens += static_cast<int64_t>(request->prompt_ids.size());
    if (options.max_tokens) {
      tokens += int64_t{request->sampling.n} * request->sampling.max_tokens;
    }
  }
  return http.visit->Reserve(tokens, now);
}

}  // namespace kvasir::api
