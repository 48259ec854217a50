// An HTTP or HTTPS server for tests: it hands each request to a function and writes what that
// returns, byte for byte.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace kvasir::loadgen::testing {

class TinyServer {
 public:
  struct Request {
    std::string head;  // request line and headers
    std::string body;
    std::string Path() const {
      const size_t begin = head.find(' ') + 1;
      return head.substr(begin, head.find(' ', begin) - begin);
    }
  };
  // The raw answer in pieces, each sent by itself. An answer with "Connection: close" ends the
  // connection, and so does an empty one. Called on several threads.
  using Handler = std::function<std::vector<std::string>(const Request&)>;

  // Speaks TLS if it is given a context, which must outlive it.
  explicit TinyServer(Handler handler, SSL_CTX* tls = nullptr)
      : handler_(std::move(handler)), tls_(tls) {
    if (tls_ != nullptr) std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes as write(2) does
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    ::listen(listener_, 64);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }

  ~TinyServer() {
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    for (const int fd : connections_) ::shutdown(fd, SHUT_RDWR);
    for (std::thread& thread : threads_) thread.join();
    for (const int fd : connections_) ::close(fd);
    ::close(listener_);
  }

  std::string url() const { return UrlOf("127.0.0.1"); }
  std::string UrlOf(std::string_view host) const {
    return fmt::format("http{}://{}:{}", tls_ != nullptr ? "s" : "", host, port_);
  }
  std::vector<Request> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  size_t connections() {
    const std::lock_guard lock(mutex_);
    return connections_.size();
  }

 private:
  // One client, over TCP or TLS.
  class Peer {
   public:
    Peer(int fd, SSL_CTX* tls) : fd_(fd), tls_(tls != nullptr ? SSL_new(tls) : nullptr) {
      if (tls_ != nullptr) SSL_set_fd(tls_, fd);
    }
    ~Peer() { SSL_free(tls_); }
    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;

    bool Open() { return tls_ == nullptr || SSL_accept(tls_) == 1; }
    bool Read(std::string& received) {
      char bytes[4096];
      const auto size = tls_ != nullptr ? SSL_read(tls_, bytes, sizeof(bytes))
                                        : ::recv(fd_, bytes, sizeof(bytes), 0);
      if (size <= 0) return false;
      received.append(bytes, static_cast<size_t>(size));
      return true;
    }
    bool Write(std::string_view bytes) {
      if (tls_ != nullptr) return SSL_write(tls_, bytes.data(), static_cast<int>(bytes.size())) > 0;
      return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0;
    }

   private:
    const int fd_;
    SSL* const tls_;
  };

  void Accept() {
    while (true) {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      const std::lock_guard lock(mutex_);
      connections_.push_back(fd);
      threads_.emplace_back([this, fd] { Serve(fd); });
    }
  }

  void Serve(int fd) {
    Peer peer(fd, tls_);
    std::string received;
    Request request;
    bool keep = peer.Open();
    while (keep && ReadRequest(peer, received, request)) {
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      keep = false;
      for (const std::string& piece : handler_(request)) {
        keep |= piece.starts_with("HTTP/1.1") && piece.find("Connection: close") == piece.npos;
        if (!peer.Write(piece)) return;
      }
    }
    ::shutdown(fd, SHUT_RDWR);
  }

  static bool ReadRequest(Peer& peer, std::string& received, Request& request) {
    size_t head_end;
    while ((head_end = received.find("\r\n\r\n")) == std::string::npos) {
      if (!peer.Read(received)) return false;
    }
    request.head = received.substr(0, head_end);
    const size_t at = request.head.find("Content-Length: ");
    const size_t length =
        at == std::string::npos ? 0 : std::strtoul(request.head.c_str() + at + 16, nullptr, 10);
    while (received.size() < head_end + 4 + length) {
      if (!peer.Read(received)) return false;
    }
    request.body = received.substr(head_end + 4, length);
    received.erase(0, head_end + 4 + length);
    return true;
  }

  Handler handler_;
  SSL_CTX* const tls_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::thread acceptor_;
  std::mutex mutex_;  // guards what follows
  std::vector<std::thread> threads_;
  std::vector<int> connections_;
  std::vector<Request> requests_;
};

inline std::string Answer(std::string_view status, std::string_view body) {
  return fmt::format("HTTP/1.1 {}\r\nContent-Length: {}\r\n\r\n{}", status, body.size(), body);
}

// An answer of server-sent events, one chunk each, and [DONE].
inline std::vector<std::string> EventStream(const std::vector<std::string>& events) {
  std::vector<std::string> pieces = {
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"};
  for (size_t i = 0; i <= events.size(); ++i) {
    const std::string event = fmt::format("data: {}\n\n", i < events.size() ? events[i] : "[DONE]");
    pieces.push_back(fmt::format("{:x}\r\n{}\r\n", event.size(), event));
  }
  pieces.push_back("0\r\n\r\n");
  return pieces;
}

inline const std::string kModels = R"({"data": [{"id": "tiny"}]})";

}  // namespace kvasir::loadgen::testing
