#include "api/http/connection.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/sslerr.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/status.hpp>
#include <ctime>
#include <exception>

#include "api/http/bare_answer.h"
#include "api/http/request_parser.h"
#include "api/http/trace.h"
#include "api/protocol/error.h"
#include "base/log.h"

namespace kvasir::api {
namespace asio = boost::asio;
namespace http = boost::beast::http;

namespace {

using boost::system::error_code;

constexpr auto kUseTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadBytes = 16 << 10;
constexpr int64_t kSmallBody = 8 << 10;  // let in whatever others send; connections bound them
constexpr Duration kLinger = std::chrono::seconds(1);

TimePoint Now() { return SteadyClock().Now(); }

// "Sun, 06 Nov 1994 08:49:37 GMT"
std::string HttpDate() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[64];
  const size_t size = std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return {text, size};
}

std::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

std::string PeerName(const asio::ip::tcp::socket& socket) {
  error_code error;
  const auto peer = socket.remote_endpoint(error);
  if (error) return "";
  const std::string address = peer.address().to_string();
  return peer.address().is_v6() ? fmt::format("[{}]:{}", address, peer.port())
                                : fmt::format("{}:{}", address, peer.port());
}

}  // namespace

asio::awaitable<void> Wakeup::Wait(TimePoint deadline) {
  timer_.expires_at(deadline);
  co_await timer_.async_wait(kUseTuple);
}

// Holds the connection weakly: an engine may keep an exchange long after its client has gone.
class Connection::ConnectionExchange final
    : public Exchange,
      public std::enable_shared_from_this<Connection::ConnectionExchange> {
 public:
  ConnectionExchange(const std::shared_ptr<Connection>& connection, HttpRequest request)
      : connection_(connection), io_(connection->io_), request_(std::move(request)) {
    request_.id = RequestId(request_);
    request_.trace = Trace(request_);
  }

  const HttpRequest& request() const override { return request_; }

  void SetCaller(std::shared_ptr<const Caller> caller, std::shared_ptr<Visit> visit) override {
    request_.caller = std::move(caller);
    request_.visit = std::move(visit);
  }

  ExchangeRecord& log() override { return record_; }

  void ReleaseBody() override {
    std::string().swap(request_.body);
    if (const auto c = Mine()) c->CountBody(0);
  }

  void Post(std::function<void()> work) override {
    const std::shared_ptr<IoThread> io = io_.lock();
    if (io == nullptr) return;
    asio::post(io->context,
               [self = shared_from_this(), work = std::move(work)] { self->Guard(work); });
  }

  void AddHeader(std::string name, std::string value) override {
    extra_headers_.emplace_back(std::move(name), std::move(value));
  }

  void Respond(HttpResponse response) override {
    if (const auto c = Mine()) c->Queue(std::move(response));
  }

  void BeginStream(const HttpResponse& head) override {
    if (const auto c = Mine()) c->QueueHead(head, std::nullopt);
  }

  void Write(std::string_view piece) override {
    if (const auto c = Mine()) c->QueuePiece(piece);
  }

  void End() override {
    if (const auto c = Mine()) c->EndAnswer();
  }

  void OnGone(std::function<void()> callback) override {
    if (gone_ || Mine() == nullptr) return callback();
    on_gone_ = std::move(callback);
  }

  // Nothing that a handler throws may reach another request.
  void Guard(const std::function<void()>& work) {
    try {
      work();
    } catch (const std::exception& e) {
      spdlog::error("{} {}: {}", request_.method, request_.path, e.what());
      if (const auto c = Mine()) {
        if (c->begun_) return c->Abort();
        Gone();
        c->Queue(ErrorResponse(500, "internal error"));
      }
    }
  }

  void Gone() {
    gone_ = true;
    if (const auto callback = std::exchange(on_gone_, nullptr)) callback();
  }

  void Complete() { on_gone_ = nullptr; }

  const std::vector<std::pair<std::string, std::string>>& extra_headers() const {
    return extra_headers_;
  }

 private:
  // The connection, while it waits for this exchange's answer.
  std::shared_ptr<Connection> Mine() const {
    std::shared_ptr<Connection> c = connection_.lock();
    if (c == nullptr || c->exchange_.get() != this || c->done_ || c->dead_) return nullptr;
    return c;
  }

  const std::weak_ptr<Connection> connection_;
  const std::weak_ptr<IoThread> io_;
  HttpRequest request_;
  ExchangeRecord record_;
  std::vector<std::pair<std::string, std::string>> extra_headers_;
  std::function<void()> on_gone_;
  bool gone_ = false;
};

struct Connection::Incoming {
  bool came = false;
  HttpRequest request;                // with an error: what of it could be read
  std::optional<HttpResponse> error;  // the answer to a request that cannot be taken
  TimePoint begin{};                  // when its first byte was seen
  size_t bytes = 0;
};

Connection::Connection(std::shared_ptr<IoThread> io, std::shared_ptr<ServerState> server,
                       asio::ip::tcp::socket socket, std::shared_ptr<asio::ssl::context> tls)
    : io_(std::move(io)),
      server_(std::move(server)),
      stream_(std::move(socket), std::move(tls)),
      wake_(io_->context),
      space_(io_->context),
      timer_(io_->context),
      peer_(PeerName(stream_.socket())) {
  server_->options.on_connections(1);
}

Connection::~Connection() {
  CountBody(0);
  server_->connections.fetch_sub(1);
  server_->options.on_connections(-1);
}

void Connection::Start() {
  io_->connections.insert(this);
  error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  Spawn(&Connection::Run);
}

void Connection::Spawn(asio::awaitable<void> (Connection::*coroutine)()) {
  asio::co_spawn(
      io_->context,
      [self = shared_from_this(), coroutine]() -> asio::awaitable<void> {
        co_await (self.get()->*coroutine)();
      },
      asio::detached);
}

asio::awaitable<void> Connection::Run() {
  open_ = !stream_.secure() || co_await Handshake();
  if (open_) {
    Spawn(&Connection::Pump);
    co_await Serve();
  }
  Abort();
  exchange_ = nullptr;
  io_->connections.erase(this);
}

asio::awaitable<bool> Connection::Handshake() {
  AbortAfter(server_->options.tls_handshake_timeout);
  const auto [error] = co_await stream_.Handshake();
  StopTimer();
  if (error.category() == asio::error::get_ssl_category() &&
      ERR_GET_REASON(static_cast<unsigned long>(error.value())) == SSL_R_HTTP_REQUEST) {
    RefusePlainHttp();
  }
  co_return !error && !dead_;
}

// As other servers do; a browser or curl would else show no more than a broken connection.
void Connection::RefusePlainHttp() {
  const std::string answer =
      BareAnswer(ErrorResponse(400, "this port speaks HTTPS: use a URL that begins with https://"));
  error_code ignored;
  asio::ip::tcp::socket& socket = stream_.socket();
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(answer), ignored);
  socket.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  server_->options.on_answer(400);
}

void Connection::BeginDrain() {
  if (!open_) return Abort();
  wake_.Notify();
}

void Connection::Abort() {
  if (std::exchange(dead_, true)) return;
  stream_.Close();
  StopTimer();
  PeerGone();
  wake_.Notify();
  space_.Notify();
}

void Connection::PeerGone() {
  if (exchange_ != nullptr && !done_) exchange_->Gone();
}

asio::awaitable<void> Connection::Pump() {
  const size_t capacity = server_->options.max_header_bytes + 2 * kReadBytes;
  std::array<char, kReadBytes> read;
  while (!dead_) {
    if (inbox_.size() + kReadBytes > capacity) {
      co_await space_.Wait(TimePoint::max());
      continue;
    }
    const auto [error, size] = co_await stream_.ReadSome(asio::buffer(read));
    if (error) break;
    if (!discard_) inbox_.append(read.data(), size);
    wake_.Notify();
  }
  peer_closed_ = true;
  PeerGone();
  wake_.Notify();
}

asio::awaitable<bool> Connection::WaitForBytes(TimePoint deadline, bool idle) {
  const size_t had = inbox_.size();
  while (inbox_.size() == had && !peer_closed_ && !dead_ && Now() < deadline) {
    if (idle && server_->draining) break;
    co_await wake_.Wait(deadline);
  }
  co_return inbox_.size() > had;
}

asio::awaitable<Connection::Incoming> Connection::ReadRequest() {
  if (inbox_.empty()) {
    const bool came = co_await WaitForBytes(Now() + server_->options.idle_timeout, true);
    if (!came) co_return Incoming{};
  }
  Incoming incoming{.begin = Now()};
  RequestParser parser(server_->options);
  const TimePoint deadline = incoming.begin + server_->options.read_timeout;
  bool continued = false;
  for (;;) {
    inbox_.erase(0, parser.Put(inbox_));
    space_.Notify();
    CountBody(static_cast<int64_t>(parser.body_size()));
    incoming.error = parser.error();
    if (!incoming.error && !BodyFits()) {
      incoming.error = ErrorResponse(
          absl::UnavailableError("the server holds too many large requests; try again later"));
    }
    if (incoming.error || parser.done()) break;
    if (parser.ExpectsContinue() && !std::exchange(continued, true)) {
      out_ += "HTTP/1.1 100 Continue\r\n\r\n";
      const bool written = co_await WriteOut();
      if (!written) co_return Incoming{};
      continue;  // the body may have come meanwhile
    }
    const bool came = co_await WaitForBytes(deadline, false);
    if (came) continue;
    if (peer_closed_ || dead_) co_return Incoming{};
    incoming.error =
        ErrorResponse(absl::DeadlineExceededError("the request did not arrive in full in time"));
    break;
  }
  keep_alive_ = !incoming.error && parser.keep_alive();
  http_1_0_ = !incoming.error && parser.http_1_0();
  incoming.came = true;
  incoming.bytes = parser.bytes_taken();
  incoming.request = parser.Release();
  incoming.request.arrival = Now();
  co_return incoming;
}

bool Connection::BodyFits() const {
  return body_bytes_ <= kSmallBody || server_->body_bytes <= server_->options.max_total_body_bytes;
}

asio::awaitable<void> Connection::Serve() {
  while (!dead_) {
    Incoming incoming = co_await ReadRequest();
    if (!incoming.came) break;
    co_await Answer(std::move(incoming));
    if (!keep_alive_ || !done_) break;
  }
  co_await Linger();
}

void Connection::CountBody(int64_t bytes) {
  server_->body_bytes.fetch_add(bytes - body_bytes_);
  body_bytes_ = bytes;
}

asio::awaitable<void> Connection::Answer(Incoming incoming) {
  HttpRequest& request = incoming.request;
  const std::string method = request.method;
  head_only_ = method == "HEAD";
  if (head_only_) request.method = "GET";
  begun_ = done_ = chunked_ = false;
  bytes_out_ = 0;
  const TimePoint deadline = request.arrival + server_->options.answer_timeout;
  const auto exchange =
      std::make_shared<ConnectionExchange>(shared_from_this(), std::move(request));
  exchange_ = exchange;
  if (incoming.error) {
    Queue(*std::move(incoming.error));
  } else {
    exchange->Guard([&] { server_->handler(exchange); });
  }
  const bool taken = co_await Deliver(deadline);
  CountBody(0);
  ExchangeRecord& record = exchange->log();
  record.method = method;
  record.aborted = !taken;
  record.bytes_in = static_cast<int64_t>(incoming.bytes);
  record.bytes_out = bytes_out_;
  record.duration = Now() - incoming.begin;
  record.peer = peer_;
  server_->options.on_end(exchange->request(), record);
  if (done_) exchange_ = nullptr;
}

// Writes what the exchange answers, as it comes. True when the client took the whole answer.
asio::awaitable<bool> Connection::Deliver(TimePoint deadline) {
  while (!dead_) {
    if (!out_.empty()) {
      // A client that has read the end may send its next request at once, on another connection.
      if (done_) CountBody(0);
      const bool written = co_await WriteOut();
      if (!written) break;
      continue;
    }
    if (done_) co_return true;
    if (peer_closed_) break;
    if (Now() < deadline) {
      co_await wake_.Wait(deadline);
      continue;
    }
    PeerGone();
    if (begun_) break;
    Queue(ErrorResponse(
        absl::DeadlineExceededError("the request took longer than the server allows")));
  }
  co_return false;
}

// Gives the socket all that is queued. False when the client took none of it for too long, or has
// gone.
asio::awaitable<bool> Connection::WriteOut() {
  const std::string writing = std::exchange(out_, {});
  for (size_t written = 0; written < writing.size() && !dead_;) {
    in_flight_ = writing.size() - written;
    AbortAfter(server_->options.write_timeout);
    const auto [error, size] =
        co_await stream_.WriteSome(std::string_view(writing).substr(written));
    if (error) {
      Abort();
      break;
    }
    written += size;
    bytes_out_ += static_cast<int64_t>(size);
  }
  in_flight_ = 0;
  StopTimer();
  co_return !dead_;
}

// Unless StopTimer() or another AbortAfter() comes before that.
void Connection::AbortAfter(Duration patience) {
  timer_armed_ = true;
  timer_.expires_after(patience);
  timer_.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (error || self == nullptr || !self->timer_armed_) return;
    if (self->timer_.expiry() <= Now()) self->Abort();
  });
}

void Connection::StopTimer() {
  timer_armed_ = false;
  timer_.cancel();
}

// After the last answer: lets the client read it before the socket goes, because closing with
// unread input would reset the connection and could take the answer along.
asio::awaitable<void> Connection::Linger() {
  if (dead_ || peer_closed_) co_return;
  stream_.EndWrites(shared_from_this());
  discard_ = true;
  inbox_.clear();
  space_.Notify();
  const TimePoint deadline = Now() + kLinger;
  while (!peer_closed_ && !dead_ && Now() < deadline) co_await wake_.Wait(deadline);
}

void Connection::Queue(HttpResponse response) {
  QueueHead(response, response.body.size());
  if (!head_only_) out_ += response.body;
  EndAnswer();
}

void Connection::QueueHead(const HttpResponse& head, std::optional<size_t> content_length) {
  begun_ = true;
  exchange_->log().status = head.status;
  chunked_ = !content_length && !http_1_0_;
  if (server_->draining || (!content_length && http_1_0_)) keep_alive_ = false;
  out_ +=
      fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n", head.status,
                  View(http::obsolete_reason(static_cast<http::status>(head.status))), HttpDate());
  if (head.status != 204) out_ += fmt::format("Content-Type: {}\r\n", head.content_type);
  for (const auto& [name, value] : head.headers) out_ += fmt::format("{}: {}\r\n", name, value);
  for (const auto& [name, value] : exchange_->extra_headers()) {
    out_ += fmt::format("{}: {}\r\n", name, value);
  }
  const HttpRequest& request = exchange_->request();
  for (const auto& [name, value] : server_->options.answer_headers(request)) {
    out_ += fmt::format("{}: {}\r\n", name, value);
  }
  out_ += fmt::format("X-Request-Id: {}\r\ntraceparent: {}\r\n", request.id,
                      TraceParentHeader(request.trace));
  if (!request.trace.state.empty()) {
    out_ += fmt::format("tracestate: {}\r\n", request.trace.state);
  }
  if (content_length && head.status != 204) {
    out_ += fmt::format("Content-Length: {}\r\n", *content_length);
  }
  if (chunked_) out_ += "Transfer-Encoding: chunked\r\n";
  out_ += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  server_->options.on_answer(head.status);
  wake_.Notify();
}

void Connection::QueuePiece(std::string_view piece) {
  if (head_only_ || piece.empty()) return;
  if (out_.size() + in_flight_ + piece.size() > server_->options.max_pending_bytes) {
    spdlog::warn("a client reads its stream too slowly: connection closed");
    return Abort();
  }
  if (chunked_) {
    out_ += fmt::format("{:x}\r\n{}\r\n", piece.size(), piece);
  } else {
    out_ += piece;
  }
  wake_.Notify();
}

void Connection::EndAnswer() {
  if (chunked_ && !head_only_) out_ += "0\r\n\r\n";
  done_ = true;
  exchange_->Complete();
  wake_.Notify();
}

}  // namespace kvasir::api
