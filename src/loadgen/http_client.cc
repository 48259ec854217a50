#include "loadgen/http_client.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <nlohmann/json.hpp>
#include <utility>

namespace kvasir::loadgen {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

Status FromError(const beast::error_code& error, std::string_view what) {
  const std::string message = fmt::format("{}: {}", what, error.message());
  if (error == beast::error::timeout) return absl::DeadlineExceededError(message);
  return absl::UnavailableError(message);
}

}  // namespace

struct HttpClient::Connection {
  explicit Connection(asio::io_context& io) : stream(io) {}

  beast::tcp_stream stream;
  beast::flat_buffer buffer;
};

HttpClient::HttpClient(asio::io_context& io, Url url, std::string api_key, Duration timeout)
    : io_(io), url_(std::move(url)), api_key_(std::move(api_key)), timeout_(timeout) {}

HttpClient::~HttpClient() = default;

asio::awaitable<Status> HttpClient::Connect(Connection& connection) {
  const std::string what = fmt::format("can't reach http://{}", url_.Host());
  asio::ip::tcp::resolver resolver(io_);
  auto [resolve_error, endpoints] = co_await resolver.async_resolve(url_.host, url_.port, kAwait);
  if (resolve_error) co_return FromError(resolve_error, what);
  connection.stream.expires_after(timeout_);
  auto [connect_error, endpoint] = co_await connection.stream.async_connect(endpoints, kAwait);
  if (connect_error) co_return FromError(connect_error, what);
  beast::error_code ignored;
  connection.stream.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  co_return absl::OkStatus();
}

asio::awaitable<HttpClient::Exchanged> HttpClient::Exchange(Connection& connection,
                                                            const HttpRequest& request,
                                                            const Sink& sink) {
  Exchanged result;
  http::request<http::string_body> message(http::string_to_verb(request.method),
                                           url_.prefix + request.path, 11);
  message.set(http::field::host, url_.Host());
  message.set(http::field::content_type, "application/json");
  if (!api_key_.empty()) message.set(http::field::authorization, "Bearer " + api_key_);
  message.body() = request.body;
  message.prepare_payload();

  connection.stream.expires_after(timeout_);
  auto [write_error, written] = co_await http::async_write(connection.stream, message, kAwait);
  if (write_error) {
    result.status = FromError(write_error, "sending the request");
    co_return result;
  }
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  auto [head_error, head_size] =
      co_await http::async_read_header(connection.stream, connection.buffer, parser, kAwait);
  if (head_error) {
    result.status = FromError(head_error, "waiting for the answer");
    co_return result;
  }
  result.answered = true;
  const int status = static_cast<int>(parser.get().result_int());
  sink(status, {});
  std::array<char, 16384> piece;
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    auto [error, size] =
        co_await http::async_read_some(connection.stream, connection.buffer, parser, kAwait);
    const size_t filled = piece.size() - parser.get().body().size;
    if (filled > 0) sink(status, {piece.data(), filled});
    if (error && error != http::error::need_buffer) {
      result.status = FromError(error, "reading the answer");
      co_return result;
    }
  }
  result.reusable = parser.get().keep_alive();
  co_return result;
}

asio::awaitable<Status> HttpClient::Fetch(HttpRequest request, Sink sink) {
  while (true) {
    const bool reused = !idle_.empty();
    std::unique_ptr<Connection> connection;
    if (reused) {
      connection = std::move(idle_.back());
      idle_.pop_back();
    } else {
      connection = std::make_unique<Connection>(io_);
      Status connected = co_await Connect(*connection);
      if (!connected.ok()) co_return connected;
    }
    Exchanged exchanged = co_await Exchange(*connection, request, sink);
    if (exchanged.status.ok()) {
      if (exchanged.reusable) idle_.push_back(std::move(connection));
      co_return absl::OkStatus();
    }
    // A server may close an idle connection just when it is used again.
    const bool was_stale = reused && !exchanged.answered && absl::IsUnavailable(exchanged.status);
    if (!was_stale) co_return exchanged.status;
  }
}

asio::awaitable<StatusOr<std::string>> FirstModel(HttpClient& client) {
  int status = 0;
  std::string body;
  HttpRequest request{.path = "/v1/models"};
  HttpClient::Sink sink = [&status, &body](int s, std::string_view bytes) {
    status = s;
    body += bytes;
  };
  Status fetched = co_await client.Fetch(std::move(request), std::move(sink));
  if (!fetched.ok()) co_return fetched;
  const nlohmann::json list = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (status != 200 || !list.is_object() || !list.contains("data")) co_return std::string();
  const nlohmann::json& data = list["data"];
  if (!data.is_array() || data.empty() || !data[0].is_object()) co_return std::string();
  const auto id = data[0].find("id");
  if (id == data[0].end() || !id->is_string()) co_return std::string();
  co_return id->get<std::string>();
}

}  // namespace kvasir::loadgen
