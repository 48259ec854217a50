// An answer outside of any exchange, as bytes: the connection ends with it.
#pragma once

#include <fmt/format.h>

#include <boost/beast/http/status.hpp>
#include <string>

#include "api/http/message.h"
#include "api/http/trace.h"

namespace kvasir::api {

inline std::string BareAnswer(const HttpResponse& response) {
  const auto status = static_cast<boost::beast::http::status>(response.status);
  std::string text = fmt::format(
      "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Type: {}\r\nX-Request-Id: {}\r\n"
      "Content-Length: {}\r\n",
      response.status, std::string(boost::beast::http::obsolete_reason(status)),
      response.content_type, RequestId({}), response.body.size());
  for (const auto& [name, value] : response.headers) text += fmt::format("{}: {}\r\n", name, value);
  return text + "\r\n" + response.body;
}

}  // namespace kvasir::api
