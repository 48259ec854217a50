// Bytes of a connection to one HTTP request, within the server's limits.
#pragma once

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>
#include <string_view>

#include "api/http/message.h"
#include "api/http/server.h"

namespace kvasir::api {

// Not thread-safe. `options` outlives this.
class RequestParser {
 public:
  explicit RequestParser(const HttpServerOptions& options);

  // Takes what of `bytes` belongs to this request and is complete enough to be read, and returns
  // how much that was; the rest is for the next call. Nothing is taken after an error.
  size_t Put(std::string_view bytes);

  bool done() const { return parser_.is_done(); }
  // What to answer to a request that cannot be taken; nothing can follow it.
  const std::optional<HttpResponse>& error() const { return error_; }

  // The client waits for "100 Continue" before it sends the body.
  bool ExpectsContinue() const;
  size_t body_size() const { return parser_.get().body().size(); }
  size_t bytes_taken() const { return bytes_taken_; }
  bool keep_alive() const { return parser_.keep_alive(); }
  bool http_1_0() const { return parser_.get().version() < 11; }

  // What has been read; call once.
  HttpRequest Release();

 private:
  const HttpServerOptions& options_;
  boost::beast::http::request_parser<boost::beast::http::string_body> parser_;
  std::optional<HttpResponse> error_;
  size_t bytes_taken_ = 0;
};

}  // namespace kvasir::api
