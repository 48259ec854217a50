#include "cluster/kv_event_subscriber.h"

#include <gtest/gtest.h>

#include "cluster/testing/fake_publisher.h"
#include "cluster/testing/recording_sink.h"

namespace kvasir::cluster {
namespace {

using Log = std::vector<std::string>;

std::vector<uint8_t> Stored(uint64_t hash, double timestamp = 1) {
  const StoredEvent event{
      .hashes = {ExternalHash(hash)}, .token_ids = {1}, .block_size = 1, .medium = "GPU"};
  return EncodeKvEvents({.timestamp = timestamp, .events = {event}}, HashForm::kInt64);
}

// Batches bear their sequence as the hash of their block, and their time unless it matters.
class KvEventSubscriberTest : public testing::Test {
 protected:
  KvEventSubscriberTest() {
    StatusOr<std::unique_ptr<KvEventSubscriber>> started =
        KvEventSubscriber::Start({.endpoint = publisher_.endpoint(),
                                  .replay_endpoint = publisher_.replay_endpoint(),
                                  .request_timeout = std::chrono::milliseconds(10)},
                                 sink_, clock_);
    EXPECT_TRUE(started.ok()) << started.status();
    subscriber_ = *std::move(started);
    publisher_.AwaitSubscription();
  }

  // What the publisher has sent before the subscriber came.
  void Begin(int64_t sent = 0) {
    EXPECT_EQ(publisher_.AwaitRequest(), 0);
    for (int64_t i = 0; i < sent; ++i) publisher_.Answer(i, Stored(i));
    publisher_.EndAnswer();
  }
  void Publish(int64_t sequence) { publisher_.Publish(sequence, Stored(sequence)); }

  FakePublisher publisher_;
  RecordingSink sink_;
  ManualClock clock_;
  std::unique_ptr<KvEventSubscriber> subscriber_;
};

TEST_F(KvEventSubscriberTest, HandsOnWhatIsPublished) {
  Begin();
  for (int i = 0; i < 3; ++i) Publish(i);
  EXPECT_EQ(sink_.Await({"+0", "+1", "+2"}), (Log{"+0", "+1", "+2"}));
  EXPECT_EQ(subscriber_->stats().replayed, 0);
}

TEST_F(KvEventSubscriberTest, AsksForWhatWasBeforeIt) {
  Begin(3);
  Publish(2);
  Publish(3);
  EXPECT_EQ(sink_.Await({"+0", "+1", "+2", "+3"}), (Log{"+0", "+1", "+2", "+3"}));
  EXPECT_EQ(subscriber_->stats().replayed, 3);
}

TEST_F(KvEventSubscriberTest, AsksForWhatItMissed) {
  Begin();
  Publish(0);
  Publish(3);
  EXPECT_EQ(publisher_.AwaitRequest(), 1);
  for (int i = 1; i < 5; ++i) publisher_.Answer(i, Stored(i));
  publisher_.EndAnswer();
  Publish(4);
  EXPECT_EQ(sink_.Await({"+0", "+1", "+2", "+3", "+4"}), (Log{"+0", "+1", "+2", "+3", "+4"}));
  EXPECT_EQ(subscriber_->stats().gaps, 0);
}

TEST_F(KvEventSubscriberTest, ReportsWhatCannotBeReplayed) {
  Begin();
  Publish(0);
  Publish(3);
  EXPECT_EQ(publisher_.AwaitRequest(), 1);
  publisher_.Answer(2, Stored(2));
  publisher_.EndAnswer();
  EXPECT_EQ(sink_.Await({"+0", "gap", "+2", "+3"}), (Log{"+0", "gap", "+2", "+3"}));
  EXPECT_EQ(subscriber_->stats().gaps, 1);
}

TEST_F(KvEventSubscriberTest, GoesOnWithoutAnAnswerInTime) {
  Begin();
  Publish(0);
  Publish(2);
  EXPECT_EQ(publisher_.AwaitRequest(), 1);
  clock_.Advance(std::chrono::milliseconds(10));
  EXPECT_EQ(sink_.Await({"+0", "gap", "+2"}), (Log{"+0", "gap", "+2"}));
}

TEST_F(KvEventSubscriberTest, KnowsAPublisherThatStartsAnew) {
  Begin();
  Publish(0);
  Publish(1);
  publisher_.Publish(0, Stored(7, 2));
  publisher_.Publish(1, Stored(8, 3));
  EXPECT_EQ(sink_.Await({"+0", "+1", "clear", "+7", "+8"}), (Log{"+0", "+1", "clear", "+7", "+8"}));
}

TEST_F(KvEventSubscriberTest, TakesWhatCannotBeReadForMissing) {
  Begin();
  publisher_.Publish(0, {0xc1});
  Publish(1);
  EXPECT_EQ(publisher_.AwaitRequest(), 0);
  publisher_.Answer(0, {0xc1});
  publisher_.EndAnswer();
  EXPECT_EQ(sink_.Await({"gap", "+1"}), (Log{"gap", "+1"}));
  EXPECT_EQ(subscriber_->stats().malformed, 2);
}

TEST_F(KvEventSubscriberTest, PutsASnapshotInThePlaceOfAllBefore) {
  Begin(2);
  subscriber_->RequestSnapshot();
  EXPECT_EQ(publisher_.AwaitRequest(), kSnapshotRequest);
  const std::vector<uint8_t> cleared =
      EncodeKvEvents({.timestamp = 1, .events = {ClearedEvent{}}}, HashForm::kInt64);
  publisher_.Answer(5, cleared, 2);
  publisher_.Answer(5, Stored(50), 1);
  publisher_.Answer(5, Stored(51), 0);
  publisher_.EndAnswer();
  for (int i = 2; i < 7; ++i) Publish(i);
  EXPECT_EQ(sink_.Await({"+0", "+1", "snapshot", "+6"}), (Log{"+0", "+1", "snapshot", "+6"}));
  EXPECT_EQ(sink_.blocks(), (RecordingSink::Blocks{{6, {}}, {50, {}}, {51, {}}}));
}

TEST_F(KvEventSubscriberTest, SaysWhyThereIsNoSnapshot) {
  Begin();
  const auto ask = [&] {
    subscriber_->RequestSnapshot();
    EXPECT_EQ(publisher_.AwaitRequest(), kSnapshotRequest);
  };
  ask();  // what vLLM answers
  publisher_.EndAnswer();
  sink_.Await({"NOT_FOUND"});
  ask();  // its second message is lost
  publisher_.Answer(5, Stored(0), 2);
  publisher_.Answer(5, Stored(2), 0);
  publisher_.EndAnswer();
  sink_.Await({"NOT_FOUND", "DATA_LOSS"});
  ask();  // its last one is lost
  publisher_.Answer(5, Stored(0), 1);
  publisher_.EndAnswer();
  sink_.Await({"NOT_FOUND", "DATA_LOSS", "DATA_LOSS"});
  ask();
  clock_.Advance(std::chrono::milliseconds(10));
  const Log all = {"NOT_FOUND", "DATA_LOSS", "DATA_LOSS", "DEADLINE_EXCEEDED"};
  EXPECT_EQ(sink_.Await(all), all);
  EXPECT_TRUE(sink_.blocks().empty());
  Publish(0);
  EXPECT_TRUE(sink_.AwaitThat([&] { return sink_.blocks().size() == 1; }));
}

// (The clock stands still: it would wait for its answer for ever.)
TEST_F(KvEventSubscriberTest, EndsWhileItWaitsForAnAnswer) {
  EXPECT_EQ(publisher_.AwaitRequest(), 0);
  subscriber_.reset();
  EXPECT_EQ(sink_.Await({}), Log{});
}

TEST(KvEventSubscriber, StartFailsForWhatIsNoEndpoint) {
  RecordingSink sink;
  const SteadyClock clock;
  const auto started = KvEventSubscriber::Start({.endpoint = "nowhere"}, sink, clock);
  EXPECT_EQ(started.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace kvasir::cluster
