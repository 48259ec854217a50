#include "loadgen/http_client.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
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
namespace ssl = asio::ssl;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

Status FromError(const beast::error_code& error, std::string_view what) {
  const std::string message = fmt::format("{}: {}", what, error.message());
  if (error == beast::error::timeout) return absl::DeadlineExceededError(message);
  return absl::UnavailableError(message);
}

// The certificate must be for this host, which may be an address.
void ExpectHost(SSL* tls, const std::string& host) {
  beast::error_code no_address;
  asio::ip::make_address(host, no_address);
  if (!no_address) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host.c_str());
    return;
  }
  SSL_set1_host(tls, host.c_str());
  SSL_set_tlsext_host_name(tls, host.c_str());
}

}  // namespace

struct HttpClient::Connection {
  Connection(asio::io_context& io, std::optional<ssl::context>& tls) : tcp(io) {
    if (tls) secure.emplace(tcp, *tls);
  }

  beast::tcp_stream tcp;
  std::optional<ssl::stream<beast::tcp_stream&>> secure;  // empty for http
  beast::flat_buffer buffer;
};

HttpClient::HttpClient(asio::io_context& io, Url url, HttpClientOptions options)
    : io_(io), url_(std::move(url)), options_(std::move(options)) {
  if (!url_.secure) return;
  tls_.emplace(ssl::context::tls_client);
  tls_->set_verify_mode(options_.insecure ? ssl::verify_none : ssl::verify_peer);
  // Without such files no certificate is trusted, which the handshake reports.
  beast::error_code ignored;
  tls_->set_default_verify_paths(ignored);
}

HttpClient::~HttpClient() = default;

asio::awaitable<Status> HttpClient::Connect(Connection& connection) {
  const std::string what = fmt::format("can't reach {}", url_.Origin());
  asio::ip::tcp::resolver resolver(io_);
  auto [resolve_error, endpoints] = co_await resolver.async_resolve(url_.host, url_.port, kAwait);
  if (resolve_error) co_return FromError(resolve_error, what);
  connection.tcp.expires_after(options_.timeout);
  auto [connect_error, endpoint] = co_await connection.tcp.async_connect(endpoints, kAwait);
  if (connect_error) co_return FromError(connect_error, what);
  beast::error_code ignored;
  connection.tcp.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  if (!connection.secure) co_return absl::OkStatus();
  co_return co_await SecureConnection(connection);
}

asio::awaitable<Status> HttpClient::SecureConnection(Connection& connection) {
  SSL* tls = connection.secure->native_handle();
  ExpectHost(tls, url_.host);
  auto [error] = co_await connection.secure->async_handshake(ssl::stream_base::client, kAwait);
  if (!error) co_return absl::OkStatus();
  std::string what = fmt::format("can't reach {} safely", url_.Origin());
  const long verified = SSL_get_verify_result(tls);
  if (verified != X509_V_OK) {
    what += fmt::format(": {}", X509_verify_cert_error_string(verified));
  }
  co_return FromError(error, what);
}

asio::awaitable<HttpClient::Exchanged> HttpClient::Exchange(Connection& connection,
                                                            const HttpRequest& request,
                                                            const Sink& sink) {
  if (connection.secure) {
    co_return co_await ExchangeOver(*connection.secure, connection, request, sink);
  }
  co_return co_await ExchangeOver(connection.tcp, connection, request, sink);
}

template <typename Stream>
asio::awaitable<HttpClient::Exchanged> HttpClient::ExchangeOver(Stream& stream,
                                                                Connection& connection,
                                                                const HttpRequest& request,
                                                                const Sink& sink) {
  Exchanged result;
  http::request<http::string_body> message(http::string_to_verb(request.method),
                                           url_.prefix + request.path, 11);
  message.set(http::field::host, url_.Host());
  message.set(http::field::content_type, "application/json");
  if (!options_.api_key.empty()) {
    message.set(http::field::authorization, "Bearer " + options_.api_key);
  }
  message.body() = request.body;
  message.prepare_payload();

  connection.tcp.expires_after(options_.timeout);
  auto [write_error, written] = co_await http::async_write(stream, message, kAwait);
  if (write_error) {
    result.status = FromError(write_error, "sending the request");
    co_return result;
  }
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  auto [head_error, head_size] =
      co_await http::async_read_header(stream, connection.buffer, parser, kAwait);
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
    auto [error, size] = co_await http::async_read_some(stream, connection.buffer, parser, kAwait);
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
      connection = std::make_unique<Connection>(io_, tls_);
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
