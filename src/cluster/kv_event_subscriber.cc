#include "cluster/kv_event_subscriber.h"

#include <atomic>
#include <functional>
#include <limits>
#include <optional>
#include <thread>
#include <utility>

#include "base/log.h"
#include "cluster/kv_event_publisher.h"
#include "cluster/kv_event_sequence.h"
#include "cluster/zmq_socket.h"

namespace kvasir::cluster {
namespace {

constexpr size_t kBatchFrames = 3;   // topic, sequence, payload
constexpr size_t kAnswerFrames = 4;  // empty, sequence, payload, what is left of a snapshot
constexpr int64_t kEverything = std::numeric_limits<int64_t>::max();

// A message of the replay socket.
struct Answer {
  int64_t sequence = 0;
  zmq::message_t payload;  // empty: the end
  std::optional<int64_t> left;
};

// Nothing when it is malformed.
std::optional<Answer> ReadAnswer(Frames frames) {
  if (frames.size() < kAnswerFrames - 1 || frames[0].size() != 0) return std::nullopt;
  const std::optional<int64_t> sequence = ReadNumber(frames[1]);
  if (!sequence) return std::nullopt;
  Answer answer{.sequence = *sequence, .payload = std::move(frames[2])};
  if (frames.size() == kAnswerFrames) answer.left = ReadNumber(frames[3]);
  return answer;
}

}  // namespace

class KvEventSubscriber::Impl {
 public:
  Impl(KvEventSubscriberOptions options, KvEventSink& sink, const Clock& clock,
       std::unique_ptr<Wakeup> wakeup)
      : options_(std::move(options)), sink_(sink), clock_(clock), wakeup_(std::move(wakeup)) {}

  ~Impl() {
    stopping_ = true;
    wakeup_->Signal();
    if (thread_.joinable()) thread_.join();
  }

  Status Start() {
    KVASIR_ASSIGN_OR_RETURN(
        live_, OpenSocket(context_, zmq::socket_type::sub,
                          {.endpoint = options_.endpoint,
                           .max_message_bytes = static_cast<int64_t>(options_.limits.max_bytes),
                           .subscribe = options_.topic}));
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  void RequestSnapshot() {
    snapshot_wanted_ = true;
    wakeup_->Signal();
  }

  Stats stats() const { return {batches_, replayed_, gaps_, malformed_}; }

 private:
  using OnAnswer = std::function<Status(const Answer& answer)>;

  void Run() {
    Replay(kEverything);
    zmq::socket_t* const live = &live_;
    while (!stopping_) {
      if (snapshot_wanted_.exchange(false)) {
        FetchSnapshot();
      } else if (std::optional<Frames> frames = ReceiveFrames(live_, kBatchFrames)) {
        TakeLive(*frames);
      } else {
        wakeup_->Wait({&live, 1}, Duration::max());
      }
    }
  }

  void TakeLive(const Frames& frames) {
    std::optional<int64_t> sequence;
    if (frames.size() == kBatchFrames) sequence = ReadNumber(frames[1]);
    if (!sequence || *sequence < 0) {
      ++malformed_;
      return;
    }
    const std::optional<KvEventBatch> batch = Decode(frames[2]);
    // A batch that cannot be read is missing: the next one shows the gap.
    if (!batch) return;
    switch (sequence_.Find(*sequence, batch->timestamp)) {
      case KvEventSequence::Place::kRepeated:
        return;
      case KvEventSequence::Place::kRestarted:
        sequence_ = KvEventSequence();
        sink_.OnBatch({.timestamp = batch->timestamp, .events = {ClearedEvent{}}});
        if (*sequence > 0) Replay(*sequence);
        break;
      case KvEventSequence::Place::kAhead:
        Replay(*sequence);
        break;
      case KvEventSequence::Place::kNext:
        break;
    }
    if (!stopping_) HandOn(*sequence, *batch);
  }

  // Hands on what is missing before `end`, as far as it can be had.
  void Replay(int64_t end) {
    if (options_.replay_endpoint.empty()) return;
    const Status asked = Ask(sequence_.next(), [&](const Answer& answer) {
      if (answer.sequence < sequence_.next() || answer.sequence >= end) return absl::OkStatus();
      if (const std::optional<KvEventBatch> batch = Decode(answer.payload)) {
        ++replayed_;
        HandOn(answer.sequence, *batch);
      }
      return absl::OkStatus();
    });
    if (!asked.ok() && !stopping_) {
      spdlog::warn("KV events of {} from {} on: {}", options_.endpoint, sequence_.next(),
                   std::string(asked.message()));
    }
  }

  void HandOn(int64_t sequence, const KvEventBatch& batch) {
    if (sequence > sequence_.next()) {
      ++gaps_;
      sink_.OnGap();
    }
    sequence_.Take(sequence, batch.timestamp);
    ++batches_;
    sink_.OnBatch(batch);
  }

  void FetchSnapshot() {
    int64_t sequence = 0;
    const StatusOr<KvEventBatch> snapshot = ReadSnapshot(&sequence);
    if (stopping_) return;
    if (snapshot.ok()) sequence_.Take(sequence, snapshot->timestamp);
    sink_.OnSnapshot(snapshot);
  }

  StatusOr<KvEventBatch> ReadSnapshot(int64_t* sequence) {
    if (options_.replay_endpoint.empty()) return absl::NotFoundError("no replay endpoint");
    KvEventBatch snapshot;
    std::optional<int64_t> left;
    KVASIR_RETURN_IF_ERROR(Ask(kSnapshotRequest, [&](const Answer& answer) -> Status {
      const int64_t most = left ? *left - 1 : options_.max_snapshot_messages - 1;
      if (!answer.left || *answer.left < 0 || *answer.left > most ||
          (left && *answer.left < most)) {
        return absl::DataLossError("a part of the snapshot is missing, or there are too many");
      }
      left = answer.left;
      *sequence = answer.sequence;
      std::optional<KvEventBatch> part = Decode(answer.payload);
      if (!part) return absl::DataLossError("a part of the snapshot cannot be read");
      snapshot.timestamp = part->timestamp;
      snapshot.data_parallel_rank = part->data_parallel_rank;
      for (KvEvent& event : part->events) snapshot.events.push_back(std::move(event));
      return absl::OkStatus();
    }));
    if (!left) return absl::NotFoundError("the publisher has no snapshot");
    if (*left > 0) return absl::DataLossError("the end of the snapshot is missing");
    return snapshot;
  }

  // Sends a request on a connection of its own, so that no late answer to another one comes in
  // between, and hands on what comes until the end of the answer or an error of `on_answer`.
  Status Ask(int64_t request, const OnAnswer& on_answer) {
    const TimePoint deadline = clock_.Now() + options_.request_timeout;
    KVASIR_ASSIGN_OR_RETURN(
        zmq::socket_t socket,
        OpenSocket(context_, zmq::socket_type::dealer,
                   {.endpoint = options_.replay_endpoint,
                    .max_message_bytes = static_cast<int64_t>(options_.limits.max_bytes)}));
    Frames frames;
    frames.emplace_back();
    frames.push_back(NumberFrame(request));
    SendFrames(socket, std::move(frames));
    zmq::socket_t* const waiting = &socket;
    while (!stopping_) {
      if (std::optional<Frames> received = ReceiveFrames(socket, kAnswerFrames)) {
        const std::optional<Answer> answer = ReadAnswer(*std::move(received));
        if (!answer) {
          ++malformed_;
          return absl::DataLossError("an answer is malformed");
        }
        if (answer->payload.size() == 0) return absl::OkStatus();
        KVASIR_RETURN_IF_ERROR(on_answer(*answer));
      }
      const Duration left = deadline - clock_.Now();
      if (left <= Duration::zero()) return absl::DeadlineExceededError("no answer in time");
      wakeup_->Wait({&waiting, 1}, left);
    }
    return absl::CancelledError("the subscriber ends");
  }

  std::optional<KvEventBatch> Decode(const zmq::message_t& payload) {
    StatusOr<KvEventBatch> batch = DecodeKvEvents(Bytes(payload), options_.limits);
    if (batch.ok()) return *std::move(batch);
    ++malformed_;
    spdlog::warn("KV events of {}: {}", options_.endpoint, std::string(batch.status().message()));
    return std::nullopt;
  }

  const KvEventSubscriberOptions options_;
  KvEventSink& sink_;
  const Clock& clock_;
  const std::unique_ptr<Wakeup> wakeup_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> snapshot_wanted_{false};
  std::atomic<int64_t> batches_{0};
  std::atomic<int64_t> replayed_{0};
  std::atomic<int64_t> gaps_{0};
  std::atomic<int64_t> malformed_{0};

  // Of the thread alone, once it runs.
  zmq::context_t context_;
  zmq::socket_t live_;
  KvEventSequence sequence_;

  std::thread thread_;
};

KvEventSubscriber::KvEventSubscriber(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KvEventSubscriber::~KvEventSubscriber() = default;

StatusOr<std::unique_ptr<KvEventSubscriber>> KvEventSubscriber::Start(
    KvEventSubscriberOptions options, KvEventSink& sink, const Clock& clock) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Wakeup> wakeup, Wakeup::Create());
  auto impl = std::make_unique<Impl>(std::move(options), sink, clock, std::move(wakeup));
  KVASIR_RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<KvEventSubscriber>(new KvEventSubscriber(std::move(impl)));
}

void KvEventSubscriber::RequestSnapshot() { impl_->RequestSnapshot(); }
KvEventSubscriber::Stats KvEventSubscriber::stats() const { return impl_->stats(); }

}  // namespace kvasir::cluster
