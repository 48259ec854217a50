// What clients get that do not keep to the protocol, or do not go on with it; and that others are
// not harmed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <random>

#include "api/http/server.h"
#include "api/testing/http_client.h"

namespace kvasir::api {
namespace {

using testing::Call;
using testing::HttpConnection;
using testing::Reply;

class BadClientsTest : public ::testing::Test {
 protected:
  BadClientsTest() {
    options_.port = 0;
    options_.max_header_bytes = 4096;
    options_.max_body_bytes = 10000;
    options_.on_end = [this](const HttpRequest&, const ExchangeRecord& record) {
      const std::lock_guard lock(mutex_);
      ended_.push_back(record);
      changed_.notify_all();
    };
  }

  // Answers with the body; /large with 64 MB; /never not at all.
  void Start() {
    auto server = HttpServer::Start(options_, [](const std::shared_ptr<Exchange>& exchange) {
      const HttpRequest& request = exchange->request();
      if (request.path == "/never") return;
      exchange->Respond(
          {.body = request.path == "/large" ? std::string(64 << 20, 'x') : request.body});
    });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  ExchangeRecord WaitForEnd(size_t count) {
    std::unique_lock lock(mutex_);
    const bool came =
        changed_.wait_for(lock, std::chrono::seconds(20), [&] { return ended_.size() >= count; });
    return came ? ended_[count - 1] : ExchangeRecord{};
  }

  HttpServerOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<ExchangeRecord> ended_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(BadClientsTest, GarbageAfterARequestEndsTheConnectionAfterItsAnswer) {
  Start();
  HttpConnection connection(server_->port());
  connection.Send("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nok\x01\x02garbage\r\n\r\n");
  EXPECT_EQ(connection.ReadReply().body, "ok");
  EXPECT_EQ(connection.ReadReply().status, 400);
  EXPECT_TRUE(connection.AtEnd());
}

TEST_F(BadClientsTest, AHalfClosedConnectionGetsTheAnswersThatAreThere) {
  Start();
  HttpConnection connection(server_->port());
  connection.Send("GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HT");
  connection.HalfClose();
  EXPECT_EQ(connection.ReadReply().status, 200);
  EXPECT_EQ(connection.ReadReply().status, 200);
  EXPECT_TRUE(connection.AtEnd());
}

// The body may come while "100 Continue" is being written.
TEST_F(BadClientsTest, WhoDoesNotWaitToContinueIsServedToo) {
  options_.read_timeout = std::chrono::seconds(2);
  Start();
  HttpConnection hasty(server_->port());
  for (int i = 0; i < 1000; ++i) {
    hasty.Send("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    const TimePoint later = SteadyClock().Now() + std::chrono::microseconds(i / 5);
    while (SteadyClock().Now() < later) {
    }
    hasty.Send("ok");
    Reply reply = hasty.ReadReply();
    if (reply.status == 100) reply = hasty.ReadReply();
    ASSERT_EQ(reply.status, 200) << i;
  }
}

TEST_F(BadClientsTest, ARequestCutInTwoHasNoAnswer) {
  Start();
  HttpConnection connection(server_->port());
  connection.Send("POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\nhalf");
  connection.HalfClose();
  EXPECT_EQ(connection.ReadReply().status, 0);
  EXPECT_TRUE(connection.AtEnd());
}

TEST_F(BadClientsTest, WhoReadsNothingOfItsAnswerIsLeft) {
  options_.write_timeout = std::chrono::milliseconds(50);
  Start();
  HttpConnection deaf(server_->port(), 4096);
  deaf.Request("GET", "/large");
  const ExchangeRecord record = WaitForEnd(1);
  EXPECT_TRUE(record.aborted);
  EXPECT_EQ(record.status, 200);
  EXPECT_LT(record.bytes_out, 64 << 20);
  EXPECT_EQ(Call(server_->port(), "POST", "/", "ok").body, "ok");
}

TEST_F(BadClientsTest, WhatWaitsBehindAnAnswerIsBounded) {
  Start();
  HttpConnection connection(server_->port());
  connection.Request("GET", "/never");
  // The kernel's buffers take some megabytes; then, because nobody reads, there is no room.
  const std::string more(1 << 20, 'x');
  bool taken = true;
  connection.SetPatience(std::chrono::milliseconds(100));
  for (int i = 0; i < 64 && taken; ++i) taken = connection.Send(more);
  EXPECT_FALSE(taken);
  EXPECT_EQ(Call(server_->port(), "POST", "/", "ok").body, "ok");
}

TEST_F(BadClientsTest, RandomBytesHarmNobodyElse) {
  Start();
  HttpConnection good(server_->port());
  std::mt19937 random(7);
  const std::string valid =
      "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
      "3\r\nabc\r\n0\r\n\r\n";
  for (int i = 0; i < 300; ++i) {
    std::string bytes = valid;
    for (int change = random() % 4; change >= 0; --change) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    HttpConnection bad(server_->port());
    bad.Send(bytes.substr(0, random() % bytes.size()));
    if (random() % 2 == 0) bad.HalfClose();
  }
  good.Request("POST", "/", "ok");
  EXPECT_EQ(good.ReadReply().body, "ok");
}

}  // namespace
}  // namespace kvasir::api
