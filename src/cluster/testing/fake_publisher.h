// A publisher of KV events for tests, which sends what a test tells it to and loses the rest.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cluster/kv_event_publisher.h"
#include "cluster/zmq_socket.h"

namespace kvasir::cluster {

class FakePublisher {
 public:
  FakePublisher() {
    const SocketOptions options{.bind = true, .endpoint = "tcp://127.0.0.1:*"};
    // It hears of subscriptions, so that a test can wait for them.
    pub_ = OpenSocket(context_, zmq::socket_type::xpub, options).value();
    replay_ = OpenSocket(context_, zmq::socket_type::router, options).value();
  }

  std::string endpoint() { return BoundEndpoint(pub_); }
  std::string replay_endpoint() { return BoundEndpoint(replay_); }

  void AwaitSubscription() { ASSERT_TRUE(Receive(pub_, 1)); }

  void Publish(int64_t sequence, std::vector<uint8_t> payload) {
    Frames frames;
    frames.emplace_back();
    frames.push_back(NumberFrame(sequence));
    frames.emplace_back(payload.data(), payload.size());
    ASSERT_TRUE(SendFrames(pub_, std::move(frames)));
  }

  // Waits for a request, whose number it returns.
  int64_t AwaitRequest() {
    std::optional<Frames> request = Receive(replay_, 3);
    if (!request || request->size() != 3) return -100;
    peer_.assign(Bytes((*request)[0]).begin(), Bytes((*request)[0]).end());
    return ReadNumber((*request)[2]).value_or(-100);
  }

  // A message of the answer to the last request.
  void Answer(int64_t sequence, const std::vector<uint8_t>& payload,
              std::optional<int64_t> left = std::nullopt) {
    Frames frames;
    frames.emplace_back(peer_.data(), peer_.size());
    frames.emplace_back();
    frames.push_back(NumberFrame(sequence));
    frames.emplace_back(payload.data(), payload.size());
    if (left) frames.push_back(NumberFrame(*left));
    ASSERT_TRUE(SendFrames(replay_, std::move(frames)));
  }
  void EndAnswer() { Answer(kEndOfReplay, {}); }

 private:
  static std::optional<Frames> Receive(zmq::socket_t& socket, size_t max_frames) {
    zmq_pollitem_t item{socket.handle(), 0, ZMQ_POLLIN, 0};
    zmq_poll(&item, 1, 10'000);
    return ReceiveFrames(socket, max_frames);
  }

  zmq::context_t context_;
  zmq::socket_t pub_;
  zmq::socket_t replay_;
  std::vector<uint8_t> peer_;
};

}  // namespace kvasir::cluster
