// The address of an OpenAI-compatible server.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::loadgen {

struct Url {
  std::string host;
  std::string port;
  std::string prefix;  // of every path, without a slash at its end: "" or "/proxy"

  std::string Host() const;  // for the Host header: brackets round an IPv6 address, and the port
};

// "http://HOST[:PORT][/PREFIX][/v1]"; the scheme may be left out. InvalidArgument otherwise, and
// Unimplemented for https.
StatusOr<Url> ParseUrl(std::string_view text);

}  // namespace kvasir::loadgen
