#include "loadgen/url.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace kvasir::loadgen {
namespace {

bool TakePrefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Splits "host:port" or "[address]:port".
bool SplitAuthority(std::string_view authority, Url& url) {
  const bool bracketed = authority.starts_with('[');
  const size_t host_end =
      bracketed ? authority.find(']') : std::min(authority.find(':'), authority.size());
  if (host_end == std::string_view::npos) return false;
  url.host = authority.substr(bracketed, host_end - bracketed);
  std::string_view rest = authority.substr(host_end + bracketed);
  const std::string_view usual = url.secure ? "443" : "80";
  url.port = TakePrefix(rest, ":") ? rest : usual;
  return !url.host.empty() && !url.port.empty() && url.port.size() <= 5 &&
         (rest.empty() || rest == url.port) &&
         std::all_of(url.port.begin(), url.port.end(),
                     [](unsigned char c) { return std::isdigit(c); });
}

}  // namespace

std::string Url::Origin() const { return (secure ? "https://" : "http://") + Host(); }

std::string Url::Host() const {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

StatusOr<Url> ParseUrl(std::string_view text) {
  std::string_view rest = text;
  Url url;
  url.secure = TakePrefix(rest, "https://");
  if (!url.secure) TakePrefix(rest, "http://");
  const size_t slash = std::min(rest.find('/'), rest.size());
  if (!SplitAuthority(rest.substr(0, slash), url)) {
    return absl::InvalidArgumentError(
        fmt::format("\"{}\" is not an address like http://127.0.0.1:8000", text));
  }
  std::string_view prefix = rest.substr(slash);
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (prefix.ends_with("/v1")) prefix.remove_suffix(3);
  url.prefix = prefix;
  return url;
}

}  // namespace kvasir::loadgen
