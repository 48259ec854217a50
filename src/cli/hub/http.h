// HTTP GET for the hub client, over libcurl.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::cli {

struct GetResult {
  long status = 0;          // HTTP status of the last hop
  std::string next_url;     // of a paged listing: its Link header with rel="next"
  std::string interrupted;  // why the body ended early; empty: it is complete
};

// Not thread-safe.
class HubHttp {
 public:
  // `endpoint` is the hub: https://huggingface.co. `token` may be empty; it is sent to the
  // endpoint's own scheme, host and port and nowhere else, whatever a redirect says.
  HubHttp(std::string endpoint, std::string token);

  // Called with each piece of a 2xx body and its status; false aborts.
  using Sink = std::function<bool(long status, std::string_view piece)>;

  // Follows up to five redirects. `offset` > 0 asks for the bytes from there on (then the status is
  // 206, or 200 when the server sends all of it). An error here means that no answer came at all.
  StatusOr<GetResult> Get(std::string url, int64_t offset, const Sink& sink) const;

 private:
  StatusOr<GetResult> Hop(const std::string& url, int64_t offset, const Sink& sink,
                          std::string* redirect) const;

  const std::string endpoint_;
  const std::string token_;
};

// A path with everything but its slashes percent-encoded where a URL wants that.
std::string EncodePath(std::string_view path);

}  // namespace kvasir::cli
