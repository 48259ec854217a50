// An HTTP/1.1 server: connections, limits, deadlines, keep-alive, streamed answers. What is asked
// and answered is the handler's business.
//
// A few I/O threads serve all connections, each connection on one of them. A client that goes away
// or half-closes is noticed while its answer is still being made.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "api/http/exchange.h"
#include "base/clock.h"
#include "base/status.h"

namespace kvasir::api {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0: any free one
  int threads = 2;
  int64_t max_connections = 1024;            // more are answered 503
  size_t max_header_bytes = 32 << 10;        // more: 431
  size_t max_body_bytes = 16 << 20;          // more: 413
  int64_t max_total_body_bytes = 256 << 20;  // of all requests together, until released; more: 503
  size_t max_pending_bytes = 1 << 20;        // of one streamed answer, not yet taken by its client
  std::string tls_cert;                      // PEM files, see LoadTls; empty: plain HTTP
  std::string tls_key;
  Duration tls_handshake_timeout = std::chrono::seconds(10);
  Duration idle_timeout = std::chrono::seconds(75);   // between requests
  Duration read_timeout = std::chrono::seconds(60);   // first to last byte of a request; then 408
  Duration write_timeout = std::chrono::seconds(30);  // without the client taking a byte
  Duration answer_timeout = std::chrono::hours(24);   // until an answer is complete; then 408

  // For metrics; called from I/O threads.
  std::function<void(int status)> on_answer = [](int) {};
  std::function<void(int delta)> on_connections = [](int) {};
  // More headers of an answer whose head is about to be sent; called from I/O threads.
  std::function<HttpHeaders(const HttpRequest&)> answer_headers = [](const HttpRequest&) {
    return HttpHeaders();
  };
  // The exchange has ended, one way or the other; called from I/O threads, once each.
  std::function<void(const HttpRequest&, const ExchangeRecord&)> on_end =
      [](const HttpRequest&, const ExchangeRecord&) {};
};

class HttpServer {
 public:
  // Listens and starts the threads. An address in use, one that is not ours, or a TLS file that
  // cannot be used is an error that names it. The handler runs on I/O threads and must not block.
  static StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options, Handler handler);

  // Ends like Drain(0).
  virtual ~HttpServer() = default;

  virtual uint16_t port() const = 0;

  // Reads the TLS files again, for connections to come; on an error the old ones stay. Thread-safe.
  virtual Status ReloadTls() = 0;

  // Stops accepting, closes idle connections, waits up to `timeout` for answers under way, then
  // closes the rest and stops the threads. Not thread-safe; call once.
  virtual void Drain(Duration timeout) = 0;
};

}  // namespace kvasir::api
