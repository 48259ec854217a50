// What KV events need of ZeroMQ, with errors as values: sockets that are opened in one go, messages
// of several frames that never block, and a wait that another thread can end.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "base/clock.h"
#include "base/status.h"

namespace kvasir::cluster {

// InvalidArgument, with `option` named, unless the endpoint is tcp://HOST:PORT, ipc:// or
// inproc://; and where it is not of this machine alone, unless that is allowed: what goes over it
// is neither encrypted nor signed. "*" as the port is any free one.
Status CheckEndpoint(const std::string& option, const std::string& endpoint, bool allow_remote);

struct SocketOptions {
  bool bind = false;  // or connect
  std::string endpoint;
  int max_queued = 10000;         // messages for or from a peer; those beyond wait or are lost
  int64_t max_message_bytes = 0;  // of a frame that comes in: a peer that sends more is cut off
  Duration linger = Duration::zero();    // that its end waits for what was sent
  std::optional<std::string> subscribe;  // to topics that begin so
};

// Unavailable, naming the endpoint.
StatusOr<zmq::socket_t> OpenSocket(zmq::context_t& context, zmq::socket_type type,
                                   const SocketOptions& options);

// Where it is bound, with the port that it got.
std::string BoundEndpoint(zmq::socket_t& socket);

using Frames = std::vector<zmq::message_t>;

// The next message, if one has come. One of more than `max_frames` is passed over.
std::optional<Frames> ReceiveFrames(zmq::socket_t& socket, size_t max_frames);

// False when the message was not taken: there is no room, or no peer.
bool SendFrames(zmq::socket_t& socket, Frames frames);

absl::Span<const uint8_t> Bytes(const zmq::message_t& frame);

// Sequence numbers, on the wire: 8 bytes, big endian, two's complement.
zmq::message_t NumberFrame(int64_t number);
std::optional<int64_t> ReadNumber(const zmq::message_t& frame);  // none: not 8 bytes

// Ends another thread's wait. Signal() is thread-safe and never blocks.
class Wakeup {
 public:
  static StatusOr<std::unique_ptr<Wakeup>> Create();
  ~Wakeup();
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  void Signal();
  // Waits until a message has come to one of the sockets or Signal() was called since the last
  // Wait, up to `most`.
  void Wait(absl::Span<zmq::socket_t* const> sockets, Duration most);

 private:
  explicit Wakeup(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace kvasir::cluster
