#include "cluster/zmq_socket.h"

#include <gtest/gtest.h>

namespace kvasir::cluster {
namespace {

TEST(CheckEndpoint, KeepsToThisMachineUnlessToldOtherwise) {
  for (const char* local :
       {"tcp://127.0.0.1:5557", "tcp://127.1.2.3:*", "tcp://localhost:1", "tcp://LOCALHOST:1",
        "tcp://[::1]:5557", "ipc:///tmp/a", "inproc://a"}) {
    EXPECT_TRUE(CheckEndpoint("flag", local, false).ok()) << local;
  }
  for (const char* remote :
       {"tcp://*:5557", "tcp://0.0.0.0:5557", "tcp://10.0.0.1:5557", "tcp://[::]:5557",
        "tcp://eth0:5557", "tcp://127.example.org:5557", "tcp://127.0.0.1;10.0.0.1:5557"}) {
    const Status status = CheckEndpoint("flag", remote, false);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << remote;
    EXPECT_EQ(status.message().substr(0, 6), "flag: ");
    EXPECT_TRUE(CheckEndpoint("flag", remote, true).ok()) << remote;
  }
  for (const char* bad :
       {"", "tcp://", "tcp://127.0.0.1", "tcp://:5557", "127.0.0.1:5557", "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536", "tcp://127.0.0.1:x", "udp://127.0.0.1:1", "http://127.0.0.1:1"}) {
    EXPECT_FALSE(CheckEndpoint("flag", bad, true).ok()) << bad;
  }
}

TEST(OpenSocket, NamesTheEndpointThatIsTaken) {
  zmq::context_t context;
  auto first =
      OpenSocket(context, zmq::socket_type::pub, {.bind = true, .endpoint = "tcp://127.0.0.1:*"});
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string endpoint = BoundEndpoint(*first);
  const auto second =
      OpenSocket(context, zmq::socket_type::pub, {.bind = true, .endpoint = endpoint});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find(endpoint), absl::string_view::npos);
}

TEST(NumberFrame, IsEightBytesBigEndian) {
  const zmq::message_t frame = NumberFrame(0x0102);
  EXPECT_EQ(Bytes(frame), absl::MakeConstSpan(std::vector<uint8_t>{0, 0, 0, 0, 0, 0, 1, 2}));
  for (const int64_t number : {int64_t{0}, int64_t{-1}, int64_t{-2}, int64_t{1} << 62}) {
    EXPECT_EQ(ReadNumber(NumberFrame(number)), number);
  }
  EXPECT_EQ(ReadNumber(zmq::message_t()), std::nullopt);
}

TEST(ReceiveFrames, PassesOverWhatIsTooLong) {
  zmq::context_t context;
  const std::string endpoint = "inproc://pair";
  auto a = *OpenSocket(context, zmq::socket_type::pair, {.bind = true, .endpoint = endpoint});
  auto b = *OpenSocket(context, zmq::socket_type::pair, {.endpoint = endpoint});
  EXPECT_EQ(ReceiveFrames(b, 2), std::nullopt);
  for (const size_t count : {3, 2}) {
    Frames frames;
    for (size_t i = 0; i < count; ++i) frames.push_back(NumberFrame(i));
    EXPECT_TRUE(SendFrames(a, std::move(frames)));
  }
  const std::optional<Frames> received = ReceiveFrames(b, 2);
  ASSERT_TRUE(received);
  EXPECT_EQ(received->size(), 2u);
}

}  // namespace
}  // namespace kvasir::cluster
