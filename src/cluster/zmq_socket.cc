#include "cluster/zmq_socket.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

namespace kvasir::cluster {
namespace {

constexpr int kMaxReconnectMilliseconds = 2'000;
// A peer whose machine is silent for 25 s is gone. (ZeroMQ's own heartbeats are not understood by
// every client.)
constexpr int kKeepaliveIdleSeconds = 10;
constexpr int kKeepaliveIntervalSeconds = 5;
constexpr int kKeepaliveProbes = 3;

bool IsLoopback(std::string_view host) {
  if (host == "localhost" || host == "[::1]") return true;
  const bool numbers = host.find_first_not_of("0123456789.") == std::string_view::npos;
  return numbers && host.substr(0, 4) == "127.";
}

bool IsPort(const std::string& port) {
  uint32_t number = 0;
  return port == "*" || (absl::SimpleAtoi(port, &number) && number > 0 && number <= 65535);
}

Status Unavailable(const SocketOptions& options) {
  return absl::UnavailableError(fmt::format("cannot {} {}: {}",
                                            options.bind ? "listen on" : "connect to",
                                            options.endpoint, zmq_strerror(zmq_errno())));
}

void Set(zmq::socket_t& socket, int option, int value) {
  zmq_setsockopt(socket.handle(), option, &value, sizeof(value));
}

int Milliseconds(Duration duration) {
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(duration).count();
  return static_cast<int>(std::clamp<int64_t>(ms, 0, std::numeric_limits<int>::max()));
}

void Configure(zmq::socket_t& socket, const SocketOptions& options) {
  Set(socket, ZMQ_SNDHWM, options.max_queued);
  Set(socket, ZMQ_RCVHWM, options.max_queued);
  Set(socket, ZMQ_LINGER, Milliseconds(options.linger));
  Set(socket, ZMQ_IPV6, options.endpoint.find('[') != std::string::npos);
  Set(socket, ZMQ_TCP_KEEPALIVE, 1);
  Set(socket, ZMQ_TCP_KEEPALIVE_IDLE, kKeepaliveIdleSeconds);
  Set(socket, ZMQ_TCP_KEEPALIVE_INTVL, kKeepaliveIntervalSeconds);
  Set(socket, ZMQ_TCP_KEEPALIVE_CNT, kKeepaliveProbes);
  Set(socket, ZMQ_RECONNECT_IVL_MAX, kMaxReconnectMilliseconds);
  if (options.max_message_bytes > 0) {
    zmq_setsockopt(socket.handle(), ZMQ_MAXMSGSIZE, &options.max_message_bytes, sizeof(int64_t));
  }
  if (options.subscribe) {
    zmq_setsockopt(socket.handle(), ZMQ_SUBSCRIBE, options.subscribe->data(),
                   options.subscribe->size());
  }
}

}  // namespace

Status CheckEndpoint(const std::string& option, const std::string& endpoint, bool allow_remote) {
  if (absl::StartsWith(endpoint, "ipc://") || absl::StartsWith(endpoint, "inproc://")) {
    return absl::OkStatus();
  }
  const size_t colon = endpoint.rfind(':');
  if (!absl::StartsWith(endpoint, "tcp://") || colon <= 6 || !IsPort(endpoint.substr(colon + 1))) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: '{}' is not tcp://HOST:PORT, ipc://PATH or inproc://NAME", option, endpoint));
  }
  const std::string host = absl::AsciiStrToLower(endpoint.substr(6, colon - 6));
  if (allow_remote || IsLoopback(host)) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{}: {} can be reached from other machines, and what goes over it is not encrypted; "
      "--kv-events-allow-remote allows it",
      option, endpoint));
}

StatusOr<zmq::socket_t> OpenSocket(zmq::context_t& context, zmq::socket_type type,
                                   const SocketOptions& options) {
  try {
    zmq::socket_t socket(context, type);
    Configure(socket, options);
    const auto attach = options.bind ? zmq_bind : zmq_connect;
    if (attach(socket.handle(), options.endpoint.c_str()) != 0) return Unavailable(options);
    return StatusOr<zmq::socket_t>(std::move(socket));
  } catch (const zmq::error_t&) {  // too many sockets or files
    return Unavailable(options);
  }
}

std::string BoundEndpoint(zmq::socket_t& socket) {
  char name[512] = {};
  size_t size = sizeof(name);
  if (zmq_getsockopt(socket.handle(), ZMQ_LAST_ENDPOINT, name, &size) != 0) return "";
  return name;
}

std::optional<Frames> ReceiveFrames(zmq::socket_t& socket, size_t max_frames) {
  for (;;) {
    Frames frames;
    size_t count = 0;
    for (bool more = true; more; ++count) {
      zmq::message_t frame;
      if (zmq_msg_recv(frame.handle(), socket.handle(), ZMQ_DONTWAIT) < 0) return std::nullopt;
      more = frame.more();
      if (count < max_frames) frames.push_back(std::move(frame));
    }
    if (count <= max_frames) return frames;
  }
}

bool SendFrames(zmq::socket_t& socket, Frames frames) {
  for (size_t i = 0; i < frames.size(); ++i) {
    const int more = i + 1 < frames.size() ? ZMQ_SNDMORE : 0;
    if (zmq_msg_send(frames[i].handle(), socket.handle(), ZMQ_DONTWAIT | more) < 0) return false;
  }
  return true;
}

absl::Span<const uint8_t> Bytes(const zmq::message_t& frame) {
  return {static_cast<const uint8_t*>(frame.data()), frame.size()};
}

zmq::message_t NumberFrame(int64_t number) {
  zmq::message_t frame(sizeof(number));
  auto* bytes = static_cast<uint8_t*>(frame.data());
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(number >> (56 - 8 * i));
  return frame;
}

std::optional<int64_t> ReadNumber(const zmq::message_t& frame) {
  if (frame.size() != sizeof(int64_t)) return std::nullopt;
  uint64_t number = 0;
  for (const uint8_t byte : Bytes(frame)) number = number << 8 | byte;
  return static_cast<int64_t>(number);
}

StatusOr<std::unique_ptr<Wakeup>> Wakeup::Create() {
  const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return absl::UnavailableError(fmt::format("eventfd: {}", std::strerror(errno)));
  return std::unique_ptr<Wakeup>(new Wakeup(fd));
}

Wakeup::~Wakeup() { ::close(fd_); }

void Wakeup::Signal() {
  const uint64_t one = 1;
  // It fails only where so many signals wait already that the counter is full.
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof(one));
}

void Wakeup::Wait(absl::Span<zmq::socket_t* const> sockets, Duration most) {
  std::vector<zmq_pollitem_t> items;
  items.push_back({nullptr, fd_, ZMQ_POLLIN, 0});
  for (zmq::socket_t* socket : sockets) items.push_back({socket->handle(), 0, ZMQ_POLLIN, 0});
  const long timeout = most == Duration::max() ? -1 : Milliseconds(most);
  // A signal to the process ends it early, as if something had come.
  zmq_poll(items.data(), static_cast<int>(items.size()), timeout);
  uint64_t signals = 0;
  [[maybe_unused]] const ssize_t read = ::read(fd_, &signals, sizeof(signals));
}

}  // namespace kvasir::cluster
