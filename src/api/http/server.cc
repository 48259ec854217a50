#include "api/http/server.h"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <thread>

#include "api/http/bare_answer.h"
#include "api/http/connection.h"
#include "api/http/tls.h"
#include "api/protocol/error.h"
#include "base/log.h"

namespace kvasir::api {
namespace asio = boost::asio;

namespace {

using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kUseTuple = asio::as_tuple(asio::use_awaitable);
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);
constexpr Duration kDrainPoll = std::chrono::milliseconds(10);
constexpr Duration kAbortWait = std::chrono::seconds(2);

class Server final : public HttpServer {
 public:
  Server(HttpServerOptions options, Handler handler) : state_(std::make_shared<ServerState>()) {
    state_->options = std::move(options);
    state_->handler = std::move(handler);
    for (int i = 0; i < std::max(1, state_->options.threads); ++i) {
      io_.push_back(std::make_shared<IoThread>());
    }
    acceptor_ = std::make_unique<tcp::acceptor>(io_[0]->context);
  }

  ~Server() override {
    if (!threads_.empty()) Drain(Duration::zero());
  }

  Status LoadTls() {
    const HttpServerOptions& o = state_->options;
    if (o.tls_cert.empty() && o.tls_key.empty()) return absl::OkStatus();
    if (o.tls_cert.empty() || o.tls_key.empty()) {
      return absl::InvalidArgumentError("tls-cert and tls-key: give both or neither");
    }
    KVASIR_ASSIGN_OR_RETURN(auto loaded, api::LoadTls(o.tls_cert, o.tls_key));
    MutexLock lock(state_->mutex);
    state_->tls = std::move(loaded);
    return absl::OkStatus();
  }

  Status ReloadTls() override { return LoadTls(); }

  Status Listen() {
    const HttpServerOptions& o = state_->options;
    error_code error;
    tcp::resolver resolver(io_[0]->context);
    const auto found =
        resolver.resolve(o.host, std::to_string(o.port),
                         tcp::resolver::passive | tcp::resolver::numeric_service, error);
    if (!error) {
      const tcp::endpoint endpoint = found.begin()->endpoint();
      acceptor_->open(endpoint.protocol(), error);
      if (!error) acceptor_->set_option(tcp::acceptor::reuse_address(true), error);
      if (!error) acceptor_->bind(endpoint, error);
      if (!error) acceptor_->listen(asio::socket_base::max_listen_connections, error);
    }
    if (error) {
      return absl::UnavailableError(
          fmt::format("cannot listen on {}:{}: {}", o.host, o.port, error.message()));
    }
    port_ = acceptor_->local_endpoint().port();
    return absl::OkStatus();
  }

  void Run() {
    asio::co_spawn(io_[0]->context, Accept(), asio::detached);
    for (const auto& io : io_) {
      guards_.emplace_back(io->context.get_executor());
      threads_.emplace_back([io] { RunThread(*io); });
    }
  }

  uint16_t port() const override { return port_; }

  void Drain(Duration timeout) override {
    state_->draining = true;
    asio::post(io_[0]->context, [this] {
      error_code ignored;
      acceptor_->close(ignored);
    });
    ForEachConnection([](Connection& c) { c.BeginDrain(); });
    WaitUntilIdle(timeout);
    ForEachConnection([](Connection& c) { c.Abort(); });
    WaitUntilIdle(kAbortWait);
    guards_.clear();  // the contexts now end by themselves, once nothing is left to run
    if (state_->connections > 0) {
      for (const auto& io : io_) io->context.stop();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  static void RunThread(IoThread& io) {
    for (;;) {
      try {
        io.context.run();
        return;
      } catch (const std::exception& e) {
        spdlog::error("http: {}", e.what());
      }
    }
  }

  template <typename F>
  void ForEachConnection(F f) {
    for (const auto& io : io_) {
      asio::post(io->context, [io, f] {
        const auto connections = io->connections;  // closing one takes it out of the set
        for (Connection* c : connections) f(*c);
      });
    }
  }

  void WaitUntilIdle(Duration timeout) const {
    const TimePoint deadline = SteadyClock().Now() + timeout;
    while (state_->connections > 0 && SteadyClock().Now() < deadline) {
      std::this_thread::sleep_for(kDrainPoll);
    }
  }

  asio::awaitable<void> Accept() {
    asio::steady_timer pause(io_[0]->context);
    for (size_t next = 0; acceptor_->is_open(); next = (next + 1) % io_.size()) {
      const std::shared_ptr<IoThread>& io = io_[next];
      auto [error, socket] = co_await acceptor_->async_accept(io->context, kUseTuple);
      if (!acceptor_->is_open()) co_return;
      if (error) {  // out of descriptors, usually: some will be freed
        spdlog::warn("http: accept: {}", error.message());
        pause.expires_after(kAcceptPause);
        co_await pause.async_wait(kUseTuple);
        continue;
      }
      if (state_->connections.fetch_add(1) >= state_->options.max_connections) {
        state_->connections.fetch_sub(1);
        Refuse(std::move(socket));
        continue;
      }
      auto connection = std::make_shared<Connection>(io, state_, std::move(socket), state_->Tls());
      asio::post(io->context, [connection] { connection->Start(); });
    }
  }

  void Refuse(tcp::socket socket) {
    state_->options.on_answer(503);
    if (state_->Tls() != nullptr) return;  // a handshake would cost what there is none of
    const std::string refusal =
        BareAnswer(ErrorResponse(absl::UnavailableError("too many connections are open")));
    error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(refusal), ignored);
    socket.shutdown(tcp::socket::shutdown_send, ignored);
  }

  const std::shared_ptr<ServerState> state_;
  std::vector<std::shared_ptr<IoThread>> io_;
  std::unique_ptr<tcp::acceptor> acceptor_;
  std::vector<asio::executor_work_guard<asio::io_context::executor_type>> guards_;
  std::vector<std::thread> threads_;
  uint16_t port_ = 0;
};

}  // namespace

StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options,
                                                        Handler handler) {
  auto server = std::make_unique<Server>(std::move(options), std::move(handler));
  KVASIR_RETURN_IF_ERROR(server->LoadTls());
  KVASIR_RETURN_IF_ERROR(server->Listen());
  server->Run();
  return StatusOr<std::unique_ptr<HttpServer>>(std::move(server));
}

}  // namespace kvasir::api
