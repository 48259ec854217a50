#include "cluster/kv_event_publisher.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "cluster/kv_event_mailbox.h"
#include "cluster/replay_buffer.h"
#include "cluster/zmq_socket.h"

namespace kvasir::cluster {
namespace {

constexpr Duration kLastBatches = std::chrono::seconds(1);
constexpr int64_t kMaxRequestBytes = 256;
constexpr size_t kRequestFrames = 3;  // identity, empty, sequence
constexpr size_t kMaxSnapshots = 4;   // that peers have not read yet

using Snapshot = std::vector<Payload>;

double UnixSeconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// A frame that keeps `payload` alive instead of copying it.
zmq::message_t SharedFrame(Payload payload) {
  auto* hold = new Payload(std::move(payload));
  auto* data = const_cast<uint8_t*>((*hold)->data());  // ZeroMQ only reads it
  return zmq::message_t(
      data, (*hold)->size(), [](void*, void* held) { delete static_cast<Payload*>(held); }, hold);
}

zmq::message_t TextFrame(const std::string& text) { return {text.data(), text.size()}; }

}  // namespace

class KvEventPublisher::Impl {
 public:
  Impl(KvEventPublisherOptions options, std::unique_ptr<Wakeup> wakeup)
      : options_(std::move(options)),
        wakeup_(std::move(wakeup)),
        mailbox_(options_.max_waiting_values, !options_.replay_endpoint.empty(),
                 [this] { wakeup_->Signal(); }),
        replay_buffer_(options_.replay_batches, options_.replay_bytes) {}

  ~Impl() {
    stopping_ = true;
    wakeup_->Signal();
    if (thread_.joinable()) thread_.join();
  }

  Status Start() {
    const SocketOptions common{.bind = true,
                               .max_queued = static_cast<int>(options_.replay_batches) + 1024,
                               .max_message_bytes = kMaxRequestBytes,
                               .linger = kLastBatches};
    SocketOptions pub = common, replay = common;
    pub.endpoint = options_.endpoint;
    replay.endpoint = options_.replay_endpoint;
    KVASIR_ASSIGN_OR_RETURN(pub_, OpenSocket(context_, zmq::socket_type::pub, pub));
    options_.endpoint = BoundEndpoint(pub_);
    if (!replay.endpoint.empty()) {
      KVASIR_ASSIGN_OR_RETURN(replay_, OpenSocket(context_, zmq::socket_type::router, replay));
      options_.replay_endpoint = BoundEndpoint(replay_);
      served_.push_back(&replay_);
    }
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  KvEventMailbox& mailbox() { return mailbox_; }
  const KvEventPublisherOptions& options() const { return options_; }
  Stats stats() const { return {published_, dropped_, replays_, snapshots_}; }

 private:
  void Run() {
    while (!stopping_) {
      wakeup_->Wait(served_, Duration::max());
      if (!stopping_) std::this_thread::sleep_for(options_.gather);
      Publish();
      AnswerNext();
    }
    Publish();
  }

  void Publish() {
    KvEventMailbox::Mail mail = mailbox_.Take();
    if (!mail.events.empty()) Send(std::move(mail.events));
    if (mail.lost == 0) return;
    ++next_sequence_;
    // Once: it happens under load, and metrics tell the rest.
    if (dropped_++ == 0) {
      spdlog::warn("{} KV events are lost: they came faster than they could be published",
                   mail.lost);
    }
    Send({});
  }

  void Send(std::vector<KvEvent> events) {
    const int64_t sequence = next_sequence_++;
    auto payload = std::make_shared<const std::vector<uint8_t>>(Encode(std::move(events)));
    Frames frames;
    frames.push_back(TextFrame(options_.topic));
    frames.push_back(NumberFrame(sequence));
    frames.push_back(SharedFrame(payload));
    SendFrames(pub_, std::move(frames));
    if (!served_.empty()) replay_buffer_.Add(sequence, std::move(payload));
    ++published_;
  }

  std::vector<uint8_t> Encode(std::vector<KvEvent> events) const {
    return EncodeKvEvents({.timestamp = UnixSeconds(),
                           .events = std::move(events),
                           .data_parallel_rank = options_.data_parallel_rank},
                          options_.hash_form);
  }

  // One request, so that others, and batches, wait for no more than that.
  void AnswerNext() {
    if (served_.empty()) return;
    std::optional<Frames> request = ReceiveFrames(replay_, kRequestFrames);
    if (!request) return;
    wakeup_->Signal();  // there may be more
    if (request->size() != kRequestFrames) return;
    const std::optional<int64_t> sequence = ReadNumber((*request)[2]);
    if (!sequence) return;
    const zmq::message_t& peer = (*request)[0];
    if (*sequence == kSnapshotRequest) {
      AnswerSnapshot(peer);
    } else if (*sequence >= 0) {
      ++replays_;
      replay_buffer_.ForEach(*sequence, [&](int64_t number, const Payload& payload) {
        Answer(peer, number, SharedFrame(payload), std::nullopt);
      });
    }
    Answer(peer, kEndOfReplay, zmq::message_t(), std::nullopt);
  }

  void AnswerSnapshot(const zmq::message_t& peer) {
    std::erase_if(unread_, [](const auto& snapshot) { return snapshot.expired(); });
    if (unread_.size() >= kMaxSnapshots) {
      spdlog::warn("no snapshot of KV blocks: {} before it have not been read yet", kMaxSnapshots);
      return;
    }
    Publish();  // so that few events come on top
    const int64_t sequence = next_sequence_ - 1;
    const auto snapshot = std::make_shared<const Snapshot>(TakeSnapshot());
    int64_t left = static_cast<int64_t>(snapshot->size());
    for (const Payload& payload : *snapshot) {
      Answer(peer, sequence, SharedFrame(Payload(snapshot, payload.get())), --left);
    }
    unread_.push_back(snapshot);
    ++snapshots_;
  }

  Snapshot TakeSnapshot() const {
    Snapshot snapshot;
    std::vector<KvEvent> events = {ClearedEvent{}};
    EventJoiner stored;
    const auto flush = [&] {
      for (KvEvent& event : stored.Take()) events.push_back(std::move(event));
      snapshot.push_back(
          std::make_shared<const std::vector<uint8_t>>(Encode(std::exchange(events, {}))));
    };
    for (const HeldBlock& block : mailbox_.CopyHeld()) {
      stored.Store(block.hash, block.parent, block.token_ids);
      if (stored.values() >= options_.snapshot_values) flush();
    }
    if (stored.values() > 0 || snapshot.empty()) flush();
    return snapshot;
  }

  void Answer(const zmq::message_t& peer, int64_t sequence, zmq::message_t payload,
              std::optional<int64_t> left) {
    Frames frames;
    frames.emplace_back(peer.data(), peer.size());
    frames.emplace_back();
    frames.push_back(NumberFrame(sequence));
    frames.push_back(std::move(payload));
    if (left) frames.push_back(NumberFrame(*left));
    SendFrames(replay_, std::move(frames));
  }

  KvEventPublisherOptions options_;
  const std::unique_ptr<Wakeup> wakeup_;
  KvEventMailbox mailbox_;
  std::atomic<bool> stopping_{false};
  std::atomic<int64_t> published_{0};
  std::atomic<int64_t> dropped_{0};
  std::atomic<int64_t> replays_{0};
  std::atomic<int64_t> snapshots_{0};

  // Of the thread alone, once it runs.
  zmq::context_t context_;
  zmq::socket_t pub_;
  zmq::socket_t replay_;
  std::vector<zmq::socket_t*> served_;  // replay_, if there is one
  ReplayBuffer replay_buffer_;
  std::vector<std::weak_ptr<const Snapshot>> unread_;
  int64_t next_sequence_ = 0;

  std::thread thread_;
};

KvEventPublisher::KvEventPublisher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KvEventPublisher::~KvEventPublisher() = default;

StatusOr<std::unique_ptr<KvEventPublisher>> KvEventPublisher::Start(
    KvEventPublisherOptions options) {
  KVASIR_RETURN_IF_ERROR(
      CheckEndpoint("kv-events-endpoint", options.endpoint, options.allow_remote));
  if (!options.replay_endpoint.empty()) {
    KVASIR_RETURN_IF_ERROR(
        CheckEndpoint("kv-events-replay-endpoint", options.replay_endpoint, options.allow_remote));
  }
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Wakeup> wakeup, Wakeup::Create());
  auto impl = std::make_unique<Impl>(std::move(options), std::move(wakeup));
  KVASIR_RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<KvEventPublisher>(new KvEventPublisher(std::move(impl)));
}

kv::KvEventListener& KvEventPublisher::listener() { return impl_->mailbox(); }
const std::string& KvEventPublisher::endpoint() const { return impl_->options().endpoint; }
const std::string& KvEventPublisher::replay_endpoint() const {
  return impl_->options().replay_endpoint;
}
KvEventPublisher::Stats KvEventPublisher::stats() const { return impl_->stats(); }

}  // namespace kvasir::cluster
