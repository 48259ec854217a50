#include "api/http/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <ctime>
#include <exception>

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

HttpRequest ToRequest(http::request<http::string_body>&& message) {
  HttpRequest request;
  request.method = View(message.method_string());
  std::tie(request.path, request.query) = SplitTarget(View(message.target()));
  for (const auto& field : message) {
    request.headers.emplace_back(View(field.name_string()), View(field.value()));
  }
  request.body = std::move(message.body());
  request.arrival = Now();
  return request;
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
      : connection_(connection), io_(connection->io_), request_(std::move(request)) {}

  const HttpRequest& request() const override { return request_; }

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
  std::vector<std::pair<std::string, std::string>> extra_headers_;
  std::function<void()> on_gone_;
  bool gone_ = false;
};

struct Connection::Incoming {
  std::optional<HttpRequest> request;
  std::optional<HttpResponse> error;
};

Connection::Connection(std::shared_ptr<IoThread> io, std::shared_ptr<ServerState> server,
                       asio::ip::tcp::socket socket)
    : io_(std::move(io)),
      server_(std::move(server)),
      socket_(std::move(socket)),
      wake_(io_->context),
      space_(io_->context),
      write_timer_(io_->context) {
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
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  const auto run = [self = shared_from_this()](auto coroutine) {
    asio::co_spawn(
        self->io_->context,
        [self, coroutine]() -> asio::awaitable<void> { co_await (self.get()->*coroutine)(); },
        asio::detached);
  };
  run(&Connection::Pump);
  run(&Connection::Serve);
}

void Connection::Abort() {
  if (std::exchange(dead_, true)) return;
  error_code ignored;
  socket_.close(ignored);
  write_timer_.cancel();
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
    const auto [error, size] = co_await socket_.async_read_some(asio::buffer(read), kUseTuple);
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
  Incoming incoming;
  const HttpServerOptions& options = server_->options;
  if (inbox_.size() == 0) {
    const bool came = co_await WaitForBytes(Now() + options.idle_timeout, true);
    if (!came) co_return incoming;
  }
  http::request_parser<http::string_body> parser;
  parser.eager(true);
  parser.header_limit(static_cast<uint32_t>(options.max_header_bytes));
  parser.body_limit(options.max_body_bytes);
  const TimePoint deadline = Now() + options.read_timeout;
  bool continued = false;
  while (!parser.is_done()) {
    error_code error;
    inbox_.erase(0, parser.put(asio::buffer(inbox_), error));
    space_.Notify();
    if (error && error != http::error::need_more) {
      incoming.error = ParseErrorResponse(error, options);
      co_return incoming;
    }
    CountBody(static_cast<int64_t>(parser.get().body().size()));
    if (body_bytes_ > kSmallBody && server_->body_bytes > options.max_total_body_bytes) {
      incoming.error = ErrorResponse(
          absl::UnavailableError("the server holds too many large requests; try again later"));
      co_return incoming;
    }
    if (parser.is_done()) break;
    if (parser.is_header_done() && !std::exchange(continued, true) &&
        parser.get()[http::field::expect] == "100-continue") {
      out_ += "HTTP/1.1 100 Continue\r\n\r\n";
      const bool written = co_await WriteOut();
      if (!written) co_return incoming;
    }
    const bool came = co_await WaitForBytes(deadline, false);
    if (came) continue;
    if (!peer_closed_ && !dead_) {
      incoming.error =
          ErrorResponse(absl::DeadlineExceededError("the request did not arrive in full in time"));
    }
    co_return incoming;
  }
  keep_alive_ = parser.keep_alive();
  http_1_0_ = parser.get().version() < 11;
  incoming.request = ToRequest(parser.release());
  co_return incoming;
}

asio::awaitable<void> Connection::Serve() {
  const auto self = shared_from_this();
  while (!dead_) {
    Incoming incoming = co_await ReadRequest();
    if (incoming.error) {
      keep_alive_ = false;
      http_1_0_ = false;
      done_ = begun_ = head_only_ = false;
      exchange_ = nullptr;
      Queue(*std::move(incoming.error));
      co_await WriteOut();
    } else if (incoming.request) {
      co_await Answer(*std::move(incoming.request));
    }
    if (!incoming.request || !keep_alive_ || !done_) break;
  }
  co_await Linger();
  Abort();
  exchange_ = nullptr;
  io_->connections.erase(this);
}

void Connection::CountBody(int64_t bytes) {
  server_->body_bytes.fetch_add(bytes - body_bytes_);
  body_bytes_ = bytes;
}

void Connection::Dispatch() {
  const std::shared_ptr<ConnectionExchange> exchange = exchange_;
  exchange->Guard([&] { server_->handler(exchange); });
}

asio::awaitable<void> Connection::Answer(HttpRequest request) {
  head_only_ = request.method == "HEAD";
  if (head_only_) request.method = "GET";
  begun_ = done_ = chunked_ = false;
  exchange_ = std::make_shared<ConnectionExchange>(shared_from_this(), std::move(request));
  const TimePoint deadline = exchange_->request().arrival + server_->options.answer_timeout;
  Dispatch();
  while (!dead_) {
    if (!out_.empty()) {
      const bool written = co_await WriteOut();
      if (!written) break;
      continue;
    }
    if (done_ || peer_closed_) break;
    if (Now() < deadline) {
      co_await wake_.Wait(deadline);
      continue;
    }
    PeerGone();
    if (begun_) break;
    Queue(ErrorResponse(
        absl::DeadlineExceededError("the request took longer than the server allows")));
  }
  CountBody(0);
  if (done_) exchange_ = nullptr;
}

// Gives the socket all that is queued. False when the client took none of it for too long, or has
// gone.
asio::awaitable<bool> Connection::WriteOut() {
  const std::string writing = std::exchange(out_, {});
  for (size_t written = 0; written < writing.size() && !dead_;) {
    in_flight_ = writing.size() - written;
    ArmWriteTimer();
    const auto [error, size] = co_await socket_.async_write_some(
        asio::buffer(writing.data() + written, writing.size() - written), kUseTuple);
    if (error) {
      Abort();
      break;
    }
    written += size;
  }
  in_flight_ = 0;
  write_timer_.cancel();
  co_return !dead_;
}

void Connection::ArmWriteTimer() {
  write_timer_.expires_after(server_->options.write_timeout);
  write_timer_.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (error || self == nullptr || self->in_flight_ == 0) return;
    if (self->write_timer_.expiry() <= Now()) self->Abort();
  });
}

// After the last answer: lets the client read it before the socket goes, because closing with
// unread input would reset the connection and could take the answer along.
asio::awaitable<void> Connection::Linger() {
  if (dead_ || peer_closed_) co_return;
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
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
  chunked_ = !content_length && !http_1_0_;
  if (server_->draining || (!content_length && http_1_0_)) keep_alive_ = false;
  out_ +=
      fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n", head.status,
                  View(http::obsolete_reason(static_cast<http::status>(head.status))), HttpDate());
  if (head.status != 204) out_ += fmt::format("Content-Type: {}\r\n", head.content_type);
  for (const auto& [name, value] : head.headers) out_ += fmt::format("{}: {}\r\n", name, value);
  if (exchange_ != nullptr) {
    for (const auto& [name, value] : exchange_->extra_headers()) {
      out_ += fmt::format("{}: {}\r\n", name, value);
    }
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
  if (exchange_ != nullptr) exchange_->Complete();
  wake_.Notify();
}

}  // namespace kvasir::api
