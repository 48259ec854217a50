// A client of one HTTP server, for answers that come in pieces. Connections are kept and used
// again.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "loadgen/url.h"

namespace kvasir::loadgen {

struct HttpRequest {
  std::string method = "GET";
  std::string path;  // after the URL's prefix
  std::string body;  // JSON
};

struct HttpClientOptions {
  std::string api_key;
  Duration timeout{};     // of a whole exchange
  bool insecure = false;  // take any certificate of an https server
};

// Over TLS where the URL says so: the server's certificate must be valid for its host and lead to
// an authority that the system trusts (or the files of SSL_CERT_FILE and SSL_CERT_DIR).
//
// To be used on the one thread that runs `io`; any number of Fetch at a time.
class HttpClient {
 public:
  // `io` must outlive this.
  HttpClient(boost::asio::io_context& io, Url url, HttpClientOptions options);
  ~HttpClient();

  // `sink` gets the HTTP status and each piece of the body as it arrives, at least once. Returns
  // when the body is complete, whatever its status: Unavailable or DeadlineExceeded when there is
  // no whole answer.
  using Sink = std::function<void(int status, std::string_view bytes)>;
  boost::asio::awaitable<Status> Fetch(HttpRequest request, Sink sink);

 private:
  struct Connection;
  struct Exchanged {
    Status status;
    bool answered = false;  // at least the head of an answer came
    bool reusable = false;
  };
  boost::asio::awaitable<Status> Connect(Connection& connection);
  boost::asio::awaitable<Status> SecureConnection(Connection& connection);
  boost::asio::awaitable<Exchanged> Exchange(Connection& connection, const HttpRequest& request,
                                             const Sink& sink);
  // Over the connection's TCP or TLS stream.
  template <typename Stream>
  boost::asio::awaitable<Exchanged> ExchangeOver(Stream& stream, Connection& connection,
                                                 const HttpRequest& request, const Sink& sink);

  boost::asio::io_context& io_;
  const Url url_;
  const HttpClientOptions options_;
  std::optional<boost::asio::ssl::context> tls_;
  std::vector<std::unique_ptr<Connection>> idle_;
};

// The first model that the server lists; empty when it lists none. An error when it can't be
// reached.
boost::asio::awaitable<StatusOr<std::string>> FirstModel(HttpClient& client);

}  // namespace kvasir::loadgen
