// One client connection, and the thread it lives on. Only server.cc and connection.cc see this.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "api/http/exchange.h"
#include "api/http/server.h"
#include "api/http/stream.h"
#include "base/mutex.h"

namespace kvasir::api {

class Connection;

// What one I/O thread runs. `connections` is touched on that thread only.
struct IoThread {
  boost::asio::io_context context{1};
  std::unordered_set<Connection*> connections;
};

// What all connections of a server share. Thread-safe.
struct ServerState {
  // Null: plain HTTP.
  std::shared_ptr<boost::asio::ssl::context> Tls() {
    MutexLock lock(mutex);
    return tls;
  }

  HttpServerOptions options;
  Handler handler;
  std::atomic<int64_t> connections{0};
  std::atomic<int64_t> body_bytes{0};
  std::atomic<bool> draining{false};
  Mutex mutex;
  std::shared_ptr<boost::asio::ssl::context> tls GUARDED_BY(mutex);
};

// Lets one coroutine wait for what others on its thread do.
class Wakeup {
 public:
  explicit Wakeup(boost::asio::io_context& context) : timer_(context) {}
  void Notify() { timer_.cancel(); }
  // Returns at the next Notify() or at `deadline`; the caller looks at its condition again.
  boost::asio::awaitable<void> Wait(TimePoint deadline);

 private:
  boost::asio::steady_timer timer_;
};

// Two coroutines: one reads whatever comes into a bounded inbox, and so notices at any time that
// the client has gone; the other parses requests out of the inbox and writes answers.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // Over TLS unless `tls` is null.
  Connection(std::shared_ptr<IoThread> io, std::shared_ptr<ServerState> server,
             boost::asio::ip::tcp::socket socket, std::shared_ptr<boost::asio::ssl::context> tls);
  ~Connection();

  void Start();
  void BeginDrain();  // closes when it has nothing to answer
  void Abort();       // closes now; the exchange, if any, is gone

 private:
  class ConnectionExchange;
  struct Incoming;  // a request, one that cannot be taken, or nothing

  void Spawn(boost::asio::awaitable<void> (Connection::*coroutine)());
  boost::asio::awaitable<void> Run();
  boost::asio::awaitable<bool> Handshake();
  void RefusePlainHttp();
  boost::asio::awaitable<void> Pump();
  boost::asio::awaitable<void> Serve();
  boost::asio::awaitable<Incoming> ReadRequest();
  // False when none came in time. An `idle` wait also ends when the server drains.
  boost::asio::awaitable<bool> WaitForBytes(TimePoint deadline, bool idle);
  boost::asio::awaitable<void> Answer(Incoming incoming);
  boost::asio::awaitable<bool> Deliver(TimePoint deadline);
  boost::asio::awaitable<bool> WriteOut();
  boost::asio::awaitable<void> Linger();

  void CountBody(int64_t bytes);
  bool BodyFits() const;
  void Queue(HttpResponse response);
  void QueueHead(const HttpResponse& head, std::optional<size_t> content_length);
  void QueuePiece(std::string_view piece);
  void EndAnswer();
  void PeerGone();
  void AbortAfter(Duration patience);
  void StopTimer();

  const std::shared_ptr<IoThread> io_;
  const std::shared_ptr<ServerState> server_;
  Stream stream_;
  Wakeup wake_;                      // of Serve
  Wakeup space_;                     // of Pump
  boost::asio::steady_timer timer_;  // see AbortAfter
  bool timer_armed_ = false;
  const std::string peer_;  // its address

  std::string inbox_;  // read, not yet parsed
  int64_t body_bytes_ =
      0;  // of this connection's request until it is answered, as counted in ServerState
  bool open_ = false;  // past the handshake
  bool peer_closed_ = false;
  bool discard_ = false;  // what still comes is not read as a request
  bool dead_ = false;     // the socket is closed

  // Of the request being answered.
  std::shared_ptr<ConnectionExchange> exchange_;
  bool keep_alive_ = true;
  bool http_1_0_ = false;
  bool head_only_ = false;  // HEAD
  bool chunked_ = false;
  bool begun_ = false;     // the head is queued
  bool done_ = true;       // the answer is complete
  std::string out_;        // queued, not yet given to the socket
  size_t in_flight_ = 0;   // given to the socket, not yet taken
  int64_t bytes_out_ = 0;  // taken by the socket
};

}  // namespace kvasir::api
