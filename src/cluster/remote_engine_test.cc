// Both sides of the request plane, over loopback.
#include "cluster/remote_engine.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "cluster/engine_service.h"
#include "cluster/testing/fake_worker.h"
#include "cluster/wire.h"

namespace kvasir::cluster {
namespace {

using testing::AnswerOf;
using testing::FakeWorker;
using testing::KeepingSink;
using testing::MakeRequest;

constexpr std::chrono::seconds kPatience{20};

class RemoteEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "Debian's gRPC is not instrumented: all that it hands on looks like a race";
#endif
    Serve("127.0.0.1:0");
  }

  void Serve(const std::string& address) {
    auto started = EngineServer::Start(worker_, clock_, {.address = address});
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    address_ = fmt::format("127.0.0.1:{}", server_->port());
  }

  std::unique_ptr<RemoteEngine> Connect() {
    auto out = std::make_unique<RemoteEngine>(
        RemoteEngineOptions{.address = address_,
                            .frontend = "test",
                            .first_retry = std::chrono::milliseconds(5),
                            .last_retry = std::chrono::milliseconds(20)},
        clock_);
    EXPECT_TRUE(out->AwaitWorker(kPatience).ok());
    return out;
  }

  SteadyClock clock_;
  FakeWorker worker_;
  std::unique_ptr<EngineServer> server_;
  std::string address_;
};

TEST_F(RemoteEngineTest, CarriesRequestsAndTheirTokens) {
  const auto engine = Connect();
  EXPECT_EQ(engine->Model().weights_fingerprint, "weights");
  EXPECT_TRUE(engine->Healthy());
  const auto a = std::make_shared<KeepingSink>(2), b = std::make_shared<KeepingSink>(1);
  const auto first = MakeRequest("a", 4, 2, 30), second = MakeRequest("b", 9, 1, 7);
  ASSERT_TRUE(engine->Submit(first, a).ok());
  ASSERT_TRUE(engine->Submit(second, b).ok());
  worker_.AwaitRequests(2);
  for (int i = 0; i < 30; ++i) worker_.Step();
  a->AwaitEnd();
  b->AwaitEnd();
  for (int c = 0; c < 2; ++c) EXPECT_EQ(a->tokens(c), AnswerOf(*first, c));
  EXPECT_EQ(b->tokens(0), AnswerOf(*second, 0));
  EXPECT_EQ(b->finish(0), FinishReason::kLength);
}

TEST_F(RemoteEngineTest, CancelsAChoiceOrAll) {
  const auto engine = Connect();
  const auto sink = std::make_shared<KeepingSink>(2);
  ASSERT_TRUE(engine->Submit(MakeRequest("a", 4, 2, 30), sink).ok());
  worker_.AwaitRequests(1);
  worker_.Step();
  sink->AwaitTokens(1);
  engine->Cancel("a", 0);
  engine->Cancel("a", std::nullopt);
  sink->AwaitEnd();
  EXPECT_EQ(sink->finish(0), FinishReason::kCancelled);
  EXPECT_EQ(sink->finish(1), FinishReason::kCancelled);
}

TEST_F(RemoteEngineTest, ARefusalEndsEachChoice) {
  worker_.refusal = absl::ResourceExhaustedError("full");
  const auto engine = Connect();
  const auto sink = std::make_shared<KeepingSink>(3);
  ASSERT_TRUE(engine->Submit(MakeRequest("a", 4, 3, 30), sink).ok());
  sink->AwaitEnd();
  EXPECT_TRUE(absl::IsResourceExhausted(sink->error()));
}

TEST_F(RemoteEngineTest, ALostWorkerIsToldAndFoundAgain) {
  const auto engine = Connect();
  const auto sink = std::make_shared<KeepingSink>(2);
  ASSERT_TRUE(engine->Submit(MakeRequest("a", 4, 2, 30), sink).ok());
  worker_.AwaitRequests(1);
  server_.reset();
  sink->AwaitEnd();
  EXPECT_TRUE(absl::IsUnavailable(sink->error()));
  EXPECT_FALSE(engine->Healthy());
  EXPECT_TRUE(absl::IsUnavailable(engine->Submit(MakeRequest("b", 4, 1, 3), sink)));
  EXPECT_EQ(worker_.Stats().running, 0);  // its stream ended, and with it what came by it
  Serve(address_);
  ASSERT_TRUE(engine->AwaitWorker(kPatience).ok());
  const auto again = std::make_shared<KeepingSink>(1);
  ASSERT_TRUE(engine->Submit(MakeRequest("c", 4, 1, 3), again).ok());
  worker_.AwaitRequests(1);
  for (int i = 0; i < 3; ++i) worker_.Step();
  again->AwaitEnd();
  EXPECT_EQ(again->finish(0), FinishReason::kLength);
}

TEST_F(RemoteEngineTest, AWorkerThatComesBackWithAnotherModelGetsNothing) {
  const auto engine = Connect();
  server_.reset();
  worker_.model.weights_fingerprint = "others";
  Serve(address_);
  Status status;
  while (!absl::IsFailedPrecondition(status)) {
    status = engine->AwaitWorker(std::chrono::milliseconds(50));
  }
  EXPECT_NE(status.message().find("others"), std::string::npos) << status;
  EXPECT_FALSE(engine->Healthy());
}

TEST_F(RemoteEngineTest, AFrontendThatGoesTakesItsRequestsWithIt) {
  const auto sink = std::make_shared<KeepingSink>(1);
  {
    const auto engine = Connect();
    ASSERT_TRUE(engine->Submit(MakeRequest("a", 4, 1, 30), sink).ok());
    worker_.AwaitRequests(1);
  }
  EXPECT_TRUE(absl::IsUnavailable(sink->error()));
  while (worker_.Stats().running > 0) std::this_thread::yield();
}

// Ids are a stream's own: what one frontend cancels is not the other's.
TEST_F(RemoteEngineTest, TwoFrontendsMayUseTheSameIds) {
  const auto one = Connect(), two = Connect();
  const auto a = std::make_shared<KeepingSink>(1), b = std::make_shared<KeepingSink>(1);
  const auto request = MakeRequest("a", 4, 1, 3);
  ASSERT_TRUE(one->Submit(request, a).ok());
  ASSERT_TRUE(two->Submit(request, b).ok());
  worker_.AwaitRequests(2);
  one->Cancel("a", std::nullopt);
  a->AwaitEnd();
  for (int i = 0; i < 3; ++i) worker_.Step();
  b->AwaitEnd();
  EXPECT_EQ(a->finish(0), FinishReason::kCancelled);
  EXPECT_EQ(b->tokens(0), AnswerOf(*request, 0));
}

TEST_F(RemoteEngineTest, NobodyThereIsSaidWithTheAddress) {
  server_.reset();
  RemoteEngine engine({.address = address_, .frontend = "test"}, clock_);
  const Status status = engine.AwaitWorker(std::chrono::milliseconds(50));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_NE(status.message().find(address_), std::string::npos) << status;
}

// What a frontend of another version sends, and what it gets.
TEST_F(RemoteEngineTest, AFrontendOfAnotherMajorVersionIsRefusedByName) {
  const auto stub =
      wire::Engine::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Attach(&context);
  wire::FrontFrame hello;
  hello.mutable_hello()->mutable_version()->set_major(7);
  stream->Write(hello);
  wire::WorkerFrame frame;
  EXPECT_FALSE(stream->Read(&frame));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(status.error_message().find("speaks version 7.0"), std::string::npos);
}

TEST_F(RemoteEngineTest, ARequestBeforeAHelloIsRefused) {
  const auto stub =
      wire::Engine::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Attach(&context);
  wire::FrontFrame frame;
  frame.mutable_submit()->set_id("a");
  stream->Write(frame);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace kvasir::cluster
