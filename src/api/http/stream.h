// A client's connection as a stream of bytes: plain TCP, or TLS over it.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/error_code.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

namespace kvasir::api {

// To be used on the thread that runs the socket's executor; one read and one write at a time. What
// is awaited ends with an error when the stream is closed, and must have ended before it dies.
class Stream {
 public:
  using Transferred = std::tuple<boost::system::error_code, size_t>;

  // Over TLS unless `tls` is null.
  Stream(boost::asio::ip::tcp::socket socket, std::shared_ptr<boost::asio::ssl::context> tls)
      : socket_(std::move(socket)), context_(std::move(tls)) {
    if (context_ != nullptr) tls_.emplace(socket_, *context_);
  }

  bool secure() const { return tls_.has_value(); }
  boost::asio::ip::tcp::socket& socket() { return socket_; }

  // REQUIRES: secure(). To be done before anything is read or written.
  boost::asio::awaitable<std::tuple<boost::system::error_code>> Handshake() {
    return tls_->async_handshake(boost::asio::ssl::stream_base::server, kUseTuple);
  }

  boost::asio::awaitable<Transferred> ReadSome(boost::asio::mutable_buffer buffer) {
    return tls_ ? tls_->async_read_some(buffer, kUseTuple)
                : socket_.async_read_some(buffer, kUseTuple);
  }

  boost::asio::awaitable<Transferred> WriteSome(std::string_view bytes) {
    const boost::asio::const_buffer buffer(bytes.data(), bytes.size());
    return tls_ ? tls_->async_write_some(buffer, kUseTuple)
                : socket_.async_write_some(buffer, kUseTuple);
  }

  // Tells the peer that nothing follows; what it sends can still be read. `owner` is kept until
  // that has been said, at the latest until Close().
  void EndWrites(std::shared_ptr<void> owner) {
    boost::system::error_code ignored;
    if (!tls_) {
      socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
      return;
    }
    tls_->async_shutdown([owner = std::move(owner)](const boost::system::error_code&) {});
  }

  void Close() {
    boost::system::error_code ignored;
    socket_.close(ignored);
  }

 private:
  static constexpr auto kUseTuple = boost::asio::as_tuple(boost::asio::use_awaitable);

  boost::asio::ip::tcp::socket socket_;
  const std::shared_ptr<boost::asio::ssl::context> context_;
  std::optional<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> tls_;
};

}  // namespace kvasir::api
