// The address of an OpenAI-compatible server.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::loadgen {

struct Url {
  bool secure = false;  // https
  std::string host;
  std::string port;
  std::string prefix;  // of every path, without a slash at its end: "" or "/proxy"

  std::string Origin() const;  // "https://example.org:443"
  std::string Host() const;    // for the Host header: brackets round an IPv6 address, and the port
};

// "http[s]://HOST[:PORT][/PREFIX][/v1]"; without a scheme it is http. InvalidArgument otherwise.
StatusOr<Url> ParseUrl(std::string_view text);

}  // namespace kvasir::loadgen
