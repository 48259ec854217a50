#include "api/http/message.h"

#include <absl/strings/match.h>

namespace kvasir::api {

std::string_view HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (absl::EqualsIgnoreCase({key.data(), key.size()}, {name.data(), name.size()})) return value;
  }
  return {};
}

}  // namespace kvasir::api
