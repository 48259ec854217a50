// A blocking HTTP client over a plain socket, for tests: it sends what it is told, right or wrong,
// and gives up after some seconds instead of hanging.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir::api::testing {

struct Reply {
  int status = 0;    // 0: the connection ended without an answer
  std::string head;  // status line and headers
  std::string body;  // without chunk framing

  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }

  // The data of its server-sent events.
  std::vector<std::string> Events() const {
    std::vector<std::string> events;
    size_t at = 0;
    for (size_t end; (end = body.find("\n\n", at)) != std::string::npos; at = end + 2) {
      const std::string event = body.substr(at, end - at);
      events.push_back(event.starts_with("data: ") ? event.substr(6) : "BAD FRAME: " + event);
    }
    if (at != body.size()) events.push_back("BAD REST: " + body.substr(at));
    return events;
  }

  std::string Header(std::string_view name) const {
    const std::string key = fmt::format("\r\n{}: ", name);
    const size_t at = head.find(key);
    if (at == std::string::npos) return "";
    return head.substr(at + key.size(), head.find("\r\n", at + 2) - at - key.size());
  }
};

class HttpConnection {
 public:
  explicit HttpConnection(uint16_t port, int receive_buffer = 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    SetPatience(std::chrono::seconds(20));
    if (receive_buffer > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~HttpConnection() { Close(); }
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  // How long a read or write may take before it fails.
  void SetPatience(std::chrono::milliseconds time) {
    const timeval patience{.tv_sec = time.count() / 1000, .tv_usec = time.count() % 1000 * 1000};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  }

  void HalfClose() { ::shutdown(fd_, SHUT_WR); }

  bool connected() const { return connected_; }

  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  void Request(std::string_view method, std::string_view path, std::string_view body = "",
               std::string_view headers = "") {
    Send(fmt::format("{} {} HTTP/1.1\r\nHost: test\r\n{}Content-Length: {}\r\n\r\n{}", method, path,
                     headers, body.size(), body));
  }

  // Reads until `text` has come; returns false at the end of the stream.
  bool ReadUntil(std::string_view text) {
    while (inbox_.find(text) == std::string::npos) {
      if (!Fill()) return false;
    }
    return true;
  }

  Reply ReadReply(bool has_body = true) {
    Reply reply;
    if (!ReadUntil("\r\n\r\n")) return reply;
    const size_t end = inbox_.find("\r\n\r\n") + 4;
    reply.head = inbox_.substr(0, end);
    inbox_.erase(0, end);
    reply.status = std::stoi(reply.head.substr(9, 3));
    if (!has_body) return reply;
    if (reply.Header("Transfer-Encoding") == "chunked") {
      reply.body = ReadChunks();
    } else if (const std::string length = reply.Header("Content-Length"); !length.empty()) {
      while (inbox_.size() < std::stoul(length) && Fill()) {
      }
      reply.body = inbox_.substr(0, std::stoul(length));
      inbox_.erase(0, std::stoul(length));
    }
    return reply;
  }

  // True when the server has closed the connection, whatever else it sent before.
  bool AtEnd() {
    while (Fill()) {
    }
    return ended_;
  }

 private:
  bool Fill() {
    char buffer[4096];
    const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
    if (n > 0) inbox_.append(buffer, static_cast<size_t>(n));
    if (n == 0 || (n < 0 && errno == ECONNRESET)) ended_ = true;
    return n > 0;
  }

  std::string ReadChunks() {
    std::string body;
    for (;;) {
      if (!ReadUntil("\r\n")) return body + " [truncated]";
      const size_t size = std::stoul(inbox_, nullptr, 16);
      inbox_.erase(0, inbox_.find("\r\n") + 2);
      while (inbox_.size() < size + 2) {
        if (!Fill()) return body + " [truncated]";
      }
      body += inbox_.substr(0, size);
      inbox_.erase(0, size + 2);
      if (size == 0) return body;
    }
  }

  int fd_ = -1;
  bool connected_ = false;
  bool ended_ = false;
  std::string inbox_;
};

inline Reply Call(uint16_t port, std::string_view method, std::string_view path,
                  std::string_view body = "", std::string_view headers = "") {
  HttpConnection connection(port);
  connection.Request(method, path, body, headers);
  return connection.ReadReply();
}

}  // namespace kvasir::api::testing
