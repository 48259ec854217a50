#include "api/http/request_parser.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <string>
#include <tuple>
#include <utility>

#include "api/protocol/error.h"

namespace kvasir::api {
namespace http = boost::beast::http;

namespace {

using boost::system::error_code;

HttpResponse ParseErrorResponse(const error_code& error, const HttpServerOptions& options) {
  if (error == http::error::body_limit) {
    return ErrorResponse(413,
                         fmt::format("the body is larger than {} bytes", options.max_body_bytes));
  }
  if (error == http::error::header_limit) {
    return ErrorResponse(
        431, fmt::format("the headers are larger than {} bytes", options.max_header_bytes));
  }
  return ErrorResponse(400, fmt::format("malformed HTTP request: {}", error.message()));
}

// The path and the query of a request target in origin or absolute form.
std::pair<std::string, std::string> SplitTarget(std::string_view target) {
  if (const size_t scheme = target.find("://"); scheme != std::string_view::npos && scheme < 8) {
    const size_t path = target.find('/', scheme + 3);
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  const size_t query = target.find('?');
  if (query == std::string_view::npos) return {std::string(target), ""};
  return {std::string(target.substr(0, query)), std::string(target.substr(query + 1))};
}

std::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

RequestParser::RequestParser(const HttpServerOptions& options) : options_(options) {
  parser_.eager(true);
  parser_.header_limit(static_cast<uint32_t>(options.max_header_bytes));
  parser_.body_limit(options.max_body_bytes);
}

size_t RequestParser::Put(std::string_view bytes) {
  if (error_ || done()) return 0;
  error_code error;
  const size_t taken = parser_.put(boost::asio::buffer(bytes.data(), bytes.size()), error);
  bytes_taken_ += taken;
  if (error && error != http::error::need_more) error_ = ParseErrorResponse(error, options_);
  return taken;
}

bool RequestParser::ExpectsContinue() const {
  return parser_.is_header_done() && !parser_.is_done() &&
         parser_.get()[http::field::expect] == "100-continue";
}

HttpRequest RequestParser::Release() {
  auto message = parser_.release();
  HttpRequest request;
  request.method = View(message.method_string());
  std::tie(request.path, request.query) = SplitTarget(View(message.target()));
  for (const auto& field : message) {
    request.headers.emplace_back(View(field.name_string()), View(field.value()));
  }
  request.body = std::move(message.body());
  return request;
}

}  // namespace kvasir::api
