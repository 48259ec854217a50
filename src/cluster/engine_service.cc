#include "cluster/engine_service.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <map>
#include <optional>
#include <utility>

#include "base/log.h"
#include "base/mutex.h"
#include "cluster/wire.h"

namespace kvasir::cluster {
namespace {

constexpr std::chrono::milliseconds kStopPatience{500};

grpc::Status ToGrpc(const Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

// One frontend's stream. gRPC calls it from any thread, one reaction of a kind at a time; the
// engine's thread brings events. It lives until the stream is done and no request holds it.
class Attachment final : public grpc::ServerBidiReactor<wire::FrontFrame, wire::WorkerFrame>,
                         public std::enable_shared_from_this<Attachment> {
 public:
  Attachment(EngineClient& engine, const Clock& clock, const EngineServerOptions& options)
      : engine_(engine), clock_(clock), options_(options), number_(++made_) {}

  void Begin() {
    self_ = shared_from_this();
    StartRead(&read_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(absl::OkStatus());
    const Status status = Handle(read_);
    if (!status.ok()) return End(status);
    StartRead(&read_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::OkStatus());
    MutexLock lock(mutex_);
    writing_ = false;
    WriteNext();
  }

  void OnDone() override {
    End(absl::OkStatus());
    self_.reset();
  }

  // From the engine's thread.
  void Deliver(const std::string& id, TokenEvent event) {
    wire::Event message = ToWire(id, event);
    size_t unread = 0;
    {
      MutexLock lock(mutex_);
      if (ended_) return;
      if (event.finish && --open_choices_.at(id) == 0) open_choices_.erase(id);
      unread = unread_bytes_ += message.ByteSizeLong();
      *pending_.add_events() = std::move(message);
      WriteNext();
    }
    if (unread <= options_.max_unread_bytes) return;
    End(absl::ResourceExhaustedError(fmt::format("the frontend left {} bytes unread", unread)));
  }

 private:
  // A request's events on their way to the stream.
  class Sink final : public TokenSink {
   public:
    Sink(std::shared_ptr<Attachment> attachment, std::string id)
        : attachment_(std::move(attachment)), id_(std::move(id)) {}
    void OnEvent(TokenEvent event) override { attachment_->Deliver(id_, std::move(event)); }

   private:
    const std::shared_ptr<Attachment> attachment_;
    const std::string id_;
  };

  Status Handle(const wire::FrontFrame& frame) {
    if (!greeted_) {
      if (!frame.has_hello()) return absl::InvalidArgumentError("the first frame is no hello");
      KVASIR_RETURN_IF_ERROR(CheckVersion(frame.hello().version(), "the frontend"));
      greeted_ = true;
      spdlog::info("frontend {} is here", frame.hello().frontend());
      Welcome();
      return absl::OkStatus();
    }
    if (frame.has_submit()) return Submit(frame.submit());
    if (frame.has_cancel()) {
      const wire::Cancel& cancel = frame.cancel();
      engine_.Cancel(EngineId(cancel.id()),
                     cancel.has_choice() ? std::optional(cancel.choice()) : std::nullopt);
    }
    return absl::OkStatus();  // what a later minor version added
  }

  // Ids are unique in a stream; the engine has those of several.
  std::string EngineId(const std::string& id) const { return fmt::format("{}/{}", number_, id); }

  void Welcome() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    *pending_.mutable_welcome()->mutable_version() = OwnVersion();
    *pending_.mutable_welcome()->mutable_model() = ToWire(engine_.Model());
    WriteNext();
  }

  Status Submit(const wire::Submit& submit) EXCLUDES(mutex_) {
    KVASIR_ASSIGN_OR_RETURN(Request read, FromWire(submit, clock_.Now()));
    // A frontend has validated it already: one that sends what is not valid is no frontend of ours.
    KVASIR_RETURN_IF_ERROR(Validate(read.sampling, engine_.Model().vocab_size));
    const std::string id = std::exchange(read.id, EngineId(read.id));
    const auto request = std::make_shared<const Request>(std::move(read));
    const int32_t choices = request->sampling.n;
    {
      MutexLock lock(mutex_);
      if (ended_) return absl::OkStatus();
      if (!open_choices_.emplace(id, choices).second) {
        return absl::InvalidArgumentError(fmt::format("id: {} is in flight", id));
      }
    }
    const Status taken = engine_.Submit(request, std::make_shared<Sink>(shared_from_this(), id));
    for (int32_t choice = 0; !taken.ok() && choice < choices; ++choice) {
      Deliver(id, {.choice = choice, .finish = FinishReason::kError, .error = taken});
    }
    return absl::OkStatus();
  }

  void WriteNext() REQUIRES(mutex_) {
    const bool nothing = pending_.events().empty() && !pending_.has_welcome();
    if (writing_ || ended_ || nothing) return;
    *pending_.mutable_load() = LoadOf(engine_.Stats(), engine_.Healthy());
    written_.Swap(&pending_);
    pending_.Clear();
    unread_bytes_ = 0;
    writing_ = true;
    StartWrite(&written_);
  }

  // Once; what is still open is cancelled. (Not under the lock: an engine may bring the last events
  // at once.)
  void End(const Status& status) EXCLUDES(mutex_) {
    std::map<std::string, int32_t> open;
    {
      MutexLock lock(mutex_);
      if (std::exchange(ended_, true)) return;
      open = std::exchange(open_choices_, {});
      Finish(ToGrpc(status));
    }
    if (!status.ok()) spdlog::warn("a frontend is cut off: {}", std::string(status.message()));
    for (const auto& [id, choices] : open) engine_.Cancel(EngineId(id), std::nullopt);
  }

  EngineClient& engine_;
  const Clock& clock_;
  const EngineServerOptions& options_;
  static inline std::atomic<int64_t> made_{0};
  const int64_t number_;              // of this stream, in this process
  std::shared_ptr<Attachment> self_;  // until OnDone

  // Of the reading reactions alone.
  wire::FrontFrame read_;
  bool greeted_ = false;

  Mutex mutex_;
  bool ended_ GUARDED_BY(mutex_) = false;
  bool writing_ GUARDED_BY(mutex_) = false;
  wire::WorkerFrame pending_ GUARDED_BY(mutex_);  // the next frame
  wire::WorkerFrame written_;                     // on its way
  size_t unread_bytes_ GUARDED_BY(mutex_) = 0;    // of pending_
  std::map<std::string, int32_t> open_choices_ GUARDED_BY(mutex_);
};

}  // namespace

class EngineServer::Service final : public wire::Engine::CallbackService {
 public:
  Service(EngineClient& engine, const Clock& clock, EngineServerOptions options)
      : engine_(engine), clock_(clock), options_(std::move(options)) {}

  grpc::ServerBidiReactor<wire::FrontFrame, wire::WorkerFrame>* Attach(
      grpc::CallbackServerContext*) override {
    const auto attachment = std::make_shared<Attachment>(engine_, clock_, options_);
    attachment->Begin();
    return attachment.get();
  }

  const EngineServerOptions& options() const { return options_; }

 private:
  EngineClient& engine_;
  const Clock& clock_;
  const EngineServerOptions options_;
};

EngineServer::EngineServer(std::unique_ptr<Service> service, std::unique_ptr<grpc::Server> server,
                           int port)
    : service_(std::move(service)), server_(std::move(server)), port_(port) {}

EngineServer::~EngineServer() { Stop(); }

StatusOr<std::unique_ptr<EngineServer>> EngineServer::Start(EngineClient& engine,
                                                            const Clock& clock,
                                                            EngineServerOptions options) {
  auto service = std::make_unique<Service>(engine, clock, std::move(options));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(service->options().address, grpc::InsecureServerCredentials(), &port);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kKeepaliveMs / 2);
  builder.SetMaxReceiveMessageSize(kMaxFrameBytes);
  builder.SetMaxSendMessageSize(-1);
  builder.RegisterService(service.get());
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError(
        fmt::format("{}: cannot be listened on", service->options().address));
  }
  return std::unique_ptr<EngineServer>(
      new EngineServer(std::move(service), std::move(server), port));
}

void EngineServer::Stop() { server_->Shutdown(std::chrono::system_clock::now() + kStopPatience); }

}  // namespace kvasir::cluster
