#include "cluster/remote_engine.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <kvasir/engine/v1/engine.grpc.pb.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "cluster/wire.h"

namespace kvasir::cluster {
namespace {

// One attempt at a stream, from the call to its end. gRPC's threads call the reactions; `on_frame`
// and `on_end` come one after the other, on_end once and last.
class Stream final : public grpc::ClientBidiReactor<wire::FrontFrame, wire::WorkerFrame> {
 public:
  using OnFrame = std::function<Status(wire::WorkerFrame&)>;
  using OnEnd = std::function<void(const Status&)>;

  Stream(wire::Engine::Stub& stub, OnFrame on_frame, OnEnd on_end)
      : on_frame_(std::move(on_frame)), on_end_(std::move(on_end)) {
    stub.async()->Attach(&context_, this);
    StartRead(&read_);
    StartCall();
  }

  // Frames leave in the order of the calls.
  void Send(wire::FrontFrame frame) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (ended_) return;
    pending_.push_back(std::move(frame));
    if (pending_.size() == 1) StartWrite(&pending_.front());
  }

  // on_end follows soon.
  void Cancel() { context_.TryCancel(); }

  void AwaitEnd() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!done_) changed_.wait(mutex_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone says why
    const Status status = on_frame_(read_);
    if (!status.ok()) {
      error_ = status;
      context_.TryCancel();
      return;
    }
    StartRead(&read_);
  }

  void OnWriteDone(bool ok) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    pending_.pop_front();
    if (ok && !ended_ && !pending_.empty()) StartWrite(&pending_.front());
  }

  void OnDone(const grpc::Status& status) override EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      ended_ = true;
    }
    on_end_(!error_.ok()  ? error_
            : status.ok() ? absl::UnavailableError("the worker ended the stream")
                          : Status(static_cast<absl::StatusCode>(status.error_code()),
                                   status.error_message()));
    MutexLock lock(mutex_);
    done_ = true;
    changed_.notify_all();
  }

 private:
  const OnFrame on_frame_;
  const OnEnd on_end_;
  grpc::ClientContext context_;
  wire::WorkerFrame read_;
  Status error_;  // of a frame, before the stream is done

  Mutex mutex_;
  CondVar changed_;
  std::deque<wire::FrontFrame> pending_ GUARDED_BY(mutex_);  // the first is being written
  bool ended_ GUARDED_BY(mutex_) = false;
  bool done_ GUARDED_BY(mutex_) = false;  // no reaction comes any more
};

}  // namespace

class RemoteEngine::Impl {
 public:
  Impl(RemoteEngineOptions options, const Clock& clock)
      : options_(std::move(options)), clock_(clock) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    // A stream that failed is opened again when we say, not when gRPC's own backoff does.
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    stub_ = wire::Engine::NewStub(
        grpc::CreateCustomChannel(options_.address, grpc::InsecureChannelCredentials(), arguments));
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      if (stream_ != nullptr) stream_->Cancel();
      changed_.notify_all();
    }
    thread_.join();
  }

  Status AwaitWorker(Duration patience) const EXCLUDES(mutex_) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    MutexLock lock(mutex_);
    while (!connected_ && !absl::IsFailedPrecondition(lost_) &&
           std::chrono::steady_clock::now() < deadline) {
      changed_.wait_until(mutex_, deadline);
    }
    if (connected_) return absl::OkStatus();
    if (absl::IsFailedPrecondition(lost_)) return lost_;
    return absl::UnavailableError(
        fmt::format("worker {}: {}", options_.address,
                    lost_.ok() ? "does not answer" : std::string(lost_.message())));
  }

  const ModelInfo& model() const { return model_; }

  Status Submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink)
      EXCLUDES(mutex_) {
    wire::FrontFrame frame;
    *frame.mutable_submit() = ToWire(*request, clock_.Now());
    MutexLock lock(mutex_);
    if (!connected_) {
      return absl::UnavailableError(fmt::format("worker {} is not connected", options_.address));
    }
    InFlight in_flight{.sink = std::move(sink)};
    in_flight.finished.resize(request->sampling.n, false);
    in_flight.open = request->sampling.n;
    if (!in_flight_.emplace(request->id, std::move(in_flight)).second) {
      return absl::InvalidArgumentError(fmt::format("id: {} is in flight", request->id));
    }
    stream_->Send(std::move(frame));
    return absl::OkStatus();
  }

  void Cancel(const std::string& request_id, std::optional<int32_t> choice) EXCLUDES(mutex_) {
    wire::FrontFrame frame;
    frame.mutable_cancel()->set_id(request_id);
    if (choice) frame.mutable_cancel()->set_choice(*choice);
    MutexLock lock(mutex_);
    if (connected_ && in_flight_.contains(request_id)) stream_->Send(std::move(frame));
  }

  EngineStats stats() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return StatsOf(load_);
  }

  bool healthy() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return connected_;
  }

 private:
  struct InFlight {
    std::shared_ptr<TokenSink> sink;
    std::vector<bool> finished;  // [choices]
    int32_t open = 0;            // of these, not finished
  };

  // Opens streams, one after the other, until it is told to stop.
  void Run() EXCLUDES(mutex_) {
    Duration wait = options_.first_retry;
    while (true) {
      Stream stream(
          *stub_, [this](wire::WorkerFrame& frame) { return Handle(frame); },
          [this](const Status& status) { Lose(status); });
      bool stop = false;
      {
        MutexLock lock(mutex_);
        stream_ = &stream;
        stop = stopping_;
        wire::FrontFrame hello;
        *hello.mutable_hello()->mutable_version() = OwnVersion();
        hello.mutable_hello()->set_frontend(options_.frontend);
        stream.Send(std::move(hello));
      }
      if (stop) stream.Cancel();
      stream.AwaitEnd();
      MutexLock lock(mutex_);
      stream_ = nullptr;
      if (std::exchange(was_connected_, false)) wait = options_.first_retry;
      const auto until = std::chrono::steady_clock::now() + wait;
      while (!stopping_ && std::chrono::steady_clock::now() < until) {
        changed_.wait_until(mutex_, until);
      }
      if (stopping_) return;
      wait = std::min(2 * wait, options_.last_retry);
    }
  }

  Status Handle(wire::WorkerFrame& frame) EXCLUDES(mutex_) {
    if (frame.has_welcome()) KVASIR_RETURN_IF_ERROR(Welcome(frame.welcome()));
    {
      MutexLock lock(mutex_);
      if (!connected_) return absl::InvalidArgumentError("the worker's first frame is no welcome");
      if (frame.has_load()) load_ = frame.load();
    }
    for (const wire::Event& event : frame.events()) KVASIR_RETURN_IF_ERROR(Deliver(event));
    return absl::OkStatus();
  }

  Status Welcome(const wire::Welcome& welcome) EXCLUDES(mutex_) {
    const std::string who = fmt::format("worker {}", options_.address);
    KVASIR_RETURN_IF_ERROR(CheckVersion(welcome.version(), who));
    KVASIR_ASSIGN_OR_RETURN(ModelInfo model, FromWire(welcome.model()));
    MutexLock lock(mutex_);
    if (!known_) {
      model_ = std::move(model);
      known_ = true;
    } else if (model.weights_fingerprint != model_.weights_fingerprint ||
               model.numerics_id != model_.numerics_id ||
               model.max_model_len != model_.max_model_len) {
      return absl::FailedPreconditionError(fmt::format(
          "{} came back with weights {}, numerics {} and a context of {}, it had {}, {} "
          "and {}",
          who, model.weights_fingerprint, model.numerics_id, model.max_model_len,
          model_.weights_fingerprint, model_.numerics_id, model_.max_model_len));
    }
    connected_ = was_connected_ = true;
    lost_ = absl::OkStatus();
    changed_.notify_all();
    return absl::OkStatus();
  }

  Status Deliver(const wire::Event& message) EXCLUDES(mutex_) {
    KVASIR_ASSIGN_OR_RETURN(TokenEvent event, FromWire(message));
    std::shared_ptr<TokenSink> sink;
    {
      MutexLock lock(mutex_);
      const auto it = in_flight_.find(message.id());
      if (it == in_flight_.end()) return absl::OkStatus();
      InFlight& in_flight = it->second;
      if (event.choice < 0 || event.choice >= static_cast<int32_t>(in_flight.finished.size()) ||
          in_flight.finished[event.choice]) {
        return absl::InvalidArgumentError(
            fmt::format("an event of choice {}, which is not open", event.choice));
      }
      sink = in_flight.sink;
      if (event.finish) {
        in_flight.finished[event.choice] = true;
        if (--in_flight.open == 0) in_flight_.erase(it);
      }
    }
    sink->OnEvent(std::move(event));
    return absl::OkStatus();
  }

  void Lose(const Status& why) EXCLUDES(mutex_) {
    std::map<std::string, InFlight> lost;
    {
      MutexLock lock(mutex_);
      lost_ = why;
      if (connected_ && !stopping_) {
        spdlog::warn("worker {} is lost: {}", options_.address, std::string(why.message()));
      }
      connected_ = false;
      lost = std::exchange(in_flight_, {});
      changed_.notify_all();
    }
    const Status error = absl::UnavailableError(
        fmt::format("worker {} is lost: {}", options_.address, std::string(why.message())));
    for (auto& [id, in_flight] : lost) {
      for (size_t choice = 0; choice < in_flight.finished.size(); ++choice) {
        if (in_flight.finished[choice]) continue;
        in_flight.sink->OnEvent({.choice = static_cast<int32_t>(choice),
                                 .finish = FinishReason::kError,
                                 .error = error});
      }
    }
  }

  const RemoteEngineOptions options_;
  const Clock& clock_;
  std::unique_ptr<wire::Engine::Stub> stub_;
  ModelInfo model_;  // fixed once known_

  mutable Mutex mutex_;
  mutable CondVar changed_;
  bool known_ GUARDED_BY(mutex_) = false;
  bool connected_ GUARDED_BY(mutex_) = false;      // welcomed, and not lost since
  bool was_connected_ GUARDED_BY(mutex_) = false;  // the stream at hand
  bool stopping_ GUARDED_BY(mutex_) = false;
  Stream* stream_ GUARDED_BY(mutex_) = nullptr;
  Status lost_ GUARDED_BY(mutex_);  // why there is no connection
  wire::Load load_ GUARDED_BY(mutex_);
  std::map<std::string, InFlight> in_flight_ GUARDED_BY(mutex_);

  std::thread thread_;  // last: it uses all of the above
};

RemoteEngine::RemoteEngine(RemoteEngineOptions options, const Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), clock)) {}
RemoteEngine::~RemoteEngine() = default;

Status RemoteEngine::AwaitWorker(Duration patience) const { return impl_->AwaitWorker(patience); }

const ModelInfo& RemoteEngine::Model() const { return impl_->model(); }

Status RemoteEngine::Submit(std::shared_ptr<const Request> request,
                            std::shared_ptr<TokenSink> sink) {
  return impl_->Submit(std::move(request), std::move(sink));
}

void RemoteEngine::Cancel(const std::string& request_id, std::optional<int32_t> choice) {
  impl_->Cancel(request_id, choice);
}

EngineStats RemoteEngine::Stats() const { return impl_->stats(); }
bool RemoteEngine::Healthy() const { return impl_->healthy(); }

}  // namespace kvasir::cluster
