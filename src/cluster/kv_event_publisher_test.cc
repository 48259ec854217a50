#include "cluster/kv_event_publisher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "cluster/kv_event_subscriber.h"
#include "cluster/testing/recording_sink.h"
#include "cluster/testing/teller.h"
#include "cluster/zmq_socket.h"

namespace kvasir::cluster {
namespace {

KvEventPublisherOptions Options() {
  return {.endpoint = "tcp://127.0.0.1:*",
          .replay_endpoint = "tcp://127.0.0.1:*",
          .topic = "kv",
          .gather = Duration::zero()};
}

// A client of the replay socket that knows what vLLM's do.
class ReplayClient {
 public:
  explicit ReplayClient(const std::string& endpoint)
      : socket_(OpenSocket(context_, zmq::socket_type::dealer, {.endpoint = endpoint}).value()) {}

  void Send(std::vector<zmq::message_t> frames) { SendFrames(socket_, std::move(frames)); }

  // The messages of the answer, without the empty frame, up to its end.
  std::vector<Frames> Ask(int64_t request) {
    Frames frames;
    frames.emplace_back();
    frames.push_back(NumberFrame(request));
    Send(std::move(frames));
    std::vector<Frames> answer;
    for (;;) {
      zmq_pollitem_t item{socket_.handle(), 0, ZMQ_POLLIN, 0};
      zmq_poll(&item, 1, 10'000);
      std::optional<Frames> message = ReceiveFrames(socket_, 4);
      if (!message || message->size() < 3) {
        ADD_FAILURE() << "the answer does not end";
        return answer;
      }
      if ((*message)[2].size() == 0) {
        EXPECT_EQ(ReadNumber((*message)[1]), kEndOfReplay);
        return answer;
      }
      message->erase(message->begin());
      answer.push_back(*std::move(message));
    }
  }

 private:
  zmq::context_t context_;
  zmq::socket_t socket_;
};

std::vector<int64_t> Numbers(const std::vector<Frames>& messages) {
  std::vector<int64_t> numbers;
  for (const Frames& message : messages) numbers.push_back(*ReadNumber(message[0]));
  return numbers;
}

// Each batch is published before the next event comes.
class KvEventPublisherTest : public testing::Test {
 protected:
  void Start(KvEventPublisherOptions options) {
    auto started = KvEventPublisher::Start(std::move(options));
    ASSERT_TRUE(started.ok()) << started.status();
    publisher_ = *std::move(started);
    teller_.emplace(publisher_->listener());
  }

  void AwaitPublished(int64_t batches) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (publisher_->stats().published < batches) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
    }
  }

  Hash128 StoreAndPublish(std::optional<Hash128> parent, TokenId id) {
    const int64_t before = publisher_->stats().published;
    const Hash128 hash = teller_->Store(parent, id);
    AwaitPublished(before + 1);
    return hash;
  }

  std::unique_ptr<KvEventPublisher> publisher_;
  std::optional<Teller> teller_;
};

TEST_F(KvEventPublisherTest, ReplaysFromASequenceOn) {
  Start(Options());
  ReplayClient client(publisher_->replay_endpoint());
  EXPECT_TRUE(client.Ask(0).empty());
  const Hash128 a = StoreAndPublish(std::nullopt, 1);
  const Hash128 b = StoreAndPublish(a, 2);
  StoreAndPublish(b, 3);
  EXPECT_EQ(Numbers(client.Ask(0)), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_TRUE(client.Ask(3).empty());
  const std::vector<Frames> from_one = client.Ask(1);
  EXPECT_EQ(Numbers(from_one), (std::vector<int64_t>{1, 2}));
  const auto batch = DecodeKvEvents(Bytes(from_one[0][1]));
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_GT(batch->timestamp, 1e9);
  EXPECT_EQ(batch->data_parallel_rank, 0);
  const auto& stored = std::get<StoredEvent>(batch->events.at(0));
  EXPECT_EQ(stored.hashes[0].Low64(), ExternalHash(b).Low64());
  EXPECT_EQ(stored.parent->Low64(), ExternalHash(a).Low64());
  EXPECT_EQ(stored.token_ids, std::vector<TokenId>(kHashUnitTokens, 2));
  EXPECT_EQ(stored.medium, "GPU");
  EXPECT_EQ(publisher_->stats().replays, 4);
}

TEST_F(KvEventPublisherTest, KeepsTheLastBatchesAlone) {
  KvEventPublisherOptions options = Options();
  options.replay_batches = 2;
  Start(options);
  for (int i = 0; i < 4; ++i) StoreAndPublish(std::nullopt, i);
  ReplayClient client(publisher_->replay_endpoint());
  EXPECT_EQ(Numbers(client.Ask(0)), (std::vector<int64_t>{2, 3}));
}

TEST_F(KvEventPublisherTest, PassesOverRequestsThatAreNone) {
  Start(Options());
  ReplayClient client(publisher_->replay_endpoint());
  Frames lone, odd, many;
  lone.push_back(NumberFrame(0));
  odd.emplace_back();
  odd.emplace_back("abc", 3);
  for (int i = 0; i < 9; ++i) many.emplace_back();
  client.Send(std::move(lone));
  client.Send(std::move(odd));
  client.Send(std::move(many));
  EXPECT_TRUE(client.Ask(-7).empty());
  EXPECT_EQ(publisher_->stats().replays, 0);
}

// What is lost is a sequence that nobody gets, and an empty batch behind it.
TEST_F(KvEventPublisherTest, LeavesAGapForWhatItCouldNotTakeIn) {
  KvEventPublisherOptions options = Options();
  options.max_waiting_values = 1;
  Start(options);
  for (int i = 0; publisher_->stats().dropped == 0; ++i) teller_->Store(std::nullopt, i);
  ReplayClient client(publisher_->replay_endpoint());
  client.Ask(0);  // whose answer comes after what waits is published
  const std::vector<Frames> all = client.Ask(0);
  const std::vector<int64_t> numbers = Numbers(all);
  EXPECT_EQ(numbers.back() + 1, static_cast<int64_t>(numbers.size()) + publisher_->stats().dropped);
  for (size_t i = 1; i < all.size(); ++i) {
    const bool gap = numbers[i] > numbers[i - 1] + 1;
    EXPECT_EQ(DecodeKvEvents(Bytes(all[i][1]))->events.empty(), gap);
  }
}

TEST_F(KvEventPublisherTest, SendsASnapshotOfWhatIsHeld) {
  Start(Options());
  ReplayClient client(publisher_->replay_endpoint());
  const std::vector<Frames> empty = client.Ask(kSnapshotRequest);
  ASSERT_EQ(Numbers(empty), std::vector<int64_t>{-1});
  EXPECT_EQ(DecodeKvEvents(Bytes(empty[0][1]))->events, std::vector<KvEvent>{ClearedEvent{}});
  const Hash128 a = StoreAndPublish(std::nullopt, 1);
  const Hash128 b = StoreAndPublish(a, 2);
  teller_->Store(b, 3);
  teller_->Remove(b);
  const std::vector<Frames> snapshot = client.Ask(kSnapshotRequest);
  ASSERT_EQ(snapshot.size(), 1u);
  EXPECT_EQ(ReadNumber(snapshot[0][2]), 0) << "nothing follows";
  const auto batch = DecodeKvEvents(Bytes(snapshot[0][1]));
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_EQ(batch->events.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<ClearedEvent>(batch->events[0]));
  const auto& stored = std::get<StoredEvent>(batch->events[1]);
  EXPECT_EQ(stored.hashes.size(), 1u);
  EXPECT_EQ(stored.parent, std::nullopt);
}

TEST_F(KvEventPublisherTest, CutsALargeSnapshotIntoMessages) {
  KvEventPublisherOptions options = Options();
  options.snapshot_values = 10 * (kHashUnitTokens + 1);
  Start(options);
  constexpr int kChains = 25;
  for (int i = 0; i < kChains; ++i) teller_->Store(std::nullopt, i);
  ReplayClient client(publisher_->replay_endpoint());
  const std::vector<Frames> snapshot = client.Ask(kSnapshotRequest);
  ASSERT_EQ(snapshot.size(), 3u);
  std::set<uint64_t> hashes;
  for (size_t i = 0; i < snapshot.size(); ++i) {
    EXPECT_EQ(ReadNumber(snapshot[i][2]), static_cast<int64_t>(snapshot.size() - 1 - i));
    const auto batch = DecodeKvEvents(Bytes(snapshot[i][1]));
    ASSERT_TRUE(batch.ok()) << batch.status();
    EXPECT_EQ(std::holds_alternative<ClearedEvent>(batch->events[0]), i == 0);
    for (const KvEvent& event : batch->events) {
      const auto* stored = std::get_if<StoredEvent>(&event);
      if (stored != nullptr) hashes.insert(stored->hashes[0].Low64());
    }
  }
  EXPECT_EQ(hashes.size(), static_cast<size_t>(kChains));
}

TEST_F(KvEventPublisherTest, RefusesOtherMachinesAndEndpointsThatAreTaken) {
  KvEventPublisherOptions options = Options();
  options.replay_endpoint = "tcp://*:5558";
  EXPECT_EQ(KvEventPublisher::Start(options).status().code(), absl::StatusCode::kInvalidArgument);
  Start(Options());
  options = Options();
  options.endpoint = publisher_->endpoint();
  EXPECT_EQ(KvEventPublisher::Start(options).status().code(), absl::StatusCode::kUnavailable);
}

// Whatever is lost on the way, who follows and asks for a snapshot after each gap ends with the
// blocks that the engine holds.
TEST_F(KvEventPublisherTest, ASubscriberComesToHoldWhatTheEngineHolds) {
  KvEventPublisherOptions options = Options();
  options.max_waiting_values = 200;
  options.replay_batches = 3;
  Start(options);
  std::mt19937 random(11);
  std::map<Hash128, std::optional<Hash128>> held;
  const auto change = [&] {
    if (held.empty() || random() % 3 != 0) {
      auto parent = held.begin();
      std::advance(parent, random() % (held.size() + 1));
      const auto above = parent == held.end() ? std::nullopt : std::optional(parent->first);
      held.emplace(teller_->Store(above, static_cast<TokenId>(random() % 9)), above);
      return;
    }
    std::set<Hash128> parents;
    for (const auto& [hash, parent] : held) parents.insert(parent.value_or(Hash128()));
    const auto leaf = std::find_if(held.begin(), held.end(), [&](const auto& block) {
      return !parents.contains(block.first);
    });
    teller_->Remove(leaf->first);
    held.erase(leaf);
  };
  for (int i = 0; i < 200; ++i) change();

  RecordingSink sink;
  KvEventSubscriber* subscriber = nullptr;
  Mutex mutex;
  sink.on_gap = [&] {
    MutexLock lock(mutex);
    if (subscriber != nullptr) subscriber->RequestSnapshot();
  };
  const SteadyClock clock;
  const auto started = KvEventSubscriber::Start({.endpoint = publisher_->endpoint(),
                                                 .replay_endpoint = publisher_->replay_endpoint(),
                                                 .topic = "kv"},
                                                sink, clock);
  ASSERT_TRUE(started.ok()) << started.status();
  {
    MutexLock lock(mutex);
    subscriber = started->get();
    subscriber->RequestSnapshot();
  }
  for (int i = 0; i < 1000; ++i) change();
  // The last batch shows every gap before it; the subscriber may still be connecting.
  const auto equal = [&] {
    RecordingSink::Blocks wanted;
    for (const auto& [hash, parent] : held) {
      std::optional<uint64_t> above;
      if (parent) above = ExternalHash(*parent).Low64();
      wanted[ExternalHash(hash).Low64()] = above;
    }
    return sink.blocks() == wanted;
  };
  bool settled = false;
  for (int i = 0; i < 200 && !settled; ++i) {
    change();
    settled = sink.AwaitThat(equal, std::chrono::milliseconds(50));
  }
  EXPECT_TRUE(settled);
}

}  // namespace
}  // namespace kvasir::cluster
