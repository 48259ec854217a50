#include "engine/local_engine.h"

#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <deque>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "core/retry_after.h"
#include "engine/admission.h"
#include "engine/core.h"

namespace kvasir::engine {
namespace {

Status Overloaded(const std::string& why, double retry_after_seconds) {
  Status status = absl::ResourceExhaustedError(
      fmt::format("{}: retry after {:.0f} s", why, retry_after_seconds));
  SetRetryAfter(retry_after_seconds, status);
  return status;
}

// For a request that was accepted and then found at fault.
void FailAllChoices(const Request& request, TokenSink& sink, const Status& error) {
  for (int32_t choice = 0; choice < request.sampling.n; ++choice) {
    sink.OnEvent({.choice = choice, .finish = FinishReason::kError, .error = error});
  }
}

}  // namespace

class LocalEngine::Impl {
 public:
  Impl(std::unique_ptr<runtime::Runner> runner, ModelInfo model, EngineOptions options,
       const Clock& clock, grammar::Compiler* compiler)
      : runner_(std::move(runner)),
        compiler_(compiler),
        options_(std::move(options)),
        clock_(clock),
        core_(*runner_, std::move(model), options_, clock),
        thread_([this] { Run(); }) {}

  ~Impl() { Stop(Duration::zero()); }

  const ModelInfo& model() const { return core_.model(); }

  Status Submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink)
      EXCLUDES(mutex_) {
    KVASIR_RETURN_IF_ERROR(CheckRequest(*request, model(), options_));
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<grammar::Cursor> cursor, MakeCursor(*request));
    {
      MutexLock lock(mutex_);
      if (!failure_.ok()) return absl::UnavailableError(failure_.message());
      if (phase_ != Phase::kServing) return absl::UnavailableError("the engine is draining");
      if (queued_ >= options_.max_queue) {
        return Overloaded("the queue is full", retry_after_seconds_);
      }
      if (queue_seconds_ > MostQueueSeconds(*request)) {
        return Overloaded("the queue is too long for the request to start in time",
                          std::ceil(queue_seconds_));
      }
      ++queued_;
      ++mailed_requests_;
      mailbox_.push_back(
          {.request = std::move(request), .sink = std::move(sink), .cursor = std::move(cursor)});
    }
    wake_.notify_one();
    return absl::OkStatus();
  }

  void Cancel(const std::string& request_id, std::optional<int32_t> choice) EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (phase_ == Phase::kStopped) return;
      mailbox_.push_back({.cancel_id = request_id, .choice = choice});
    }
    wake_.notify_one();
  }

  EngineStats stats() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return stats_;
  }

  bool healthy() const {
    return !failed_ &&
           (!busy_ || clock_.Now() - TimePoint(Duration(last_progress_)) <= options_.watchdog);
  }

  Status failure() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return failure_;
  }

  // Idempotent. Afterwards the engine's thread has ended.
  void Stop(Duration grace) EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (phase_ == Phase::kServing) phase_ = Phase::kDraining;
      wake_.notify_one();
      const auto deadline = std::chrono::steady_clock::now() + grace;
      while (phase_ == Phase::kDraining && std::chrono::steady_clock::now() < deadline) {
        stopped_.wait_until(mutex_, deadline);
      }
      if (phase_ != Phase::kStopped) phase_ = Phase::kCancelling;
    }
    wake_.notify_one();
    MutexLock lock(join_mutex_);
    if (thread_.joinable()) thread_.join();
  }

  // REQUIRES: the engine's thread has ended.
  Status CheckIntegrity() const { return core_.CheckIntegrity(); }

 private:
  enum class Phase { kServing, kDraining, kCancelling, kStopped };

  // A request, or a cancellation when there is none.
  struct Command {
    std::shared_ptr<const Request> request;
    std::shared_ptr<TokenSink> sink;
    std::unique_ptr<grammar::Cursor> cursor;
    std::string cancel_id;
    std::optional<int32_t> choice;
  };

  // Null without a constraint.
  StatusOr<std::unique_ptr<grammar::Cursor>> MakeCursor(const Request& request) const {
    if (!request.constraint) return nullptr;
    if (compiler_ == nullptr || model().eos_ids.empty()) {
      return absl::InvalidArgumentError(
          "constraint: needs a model with a tokenizer and an end token");
    }
    KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<const grammar::Grammar> compiled,
                            compiler_->Compile(*request.constraint));
    return grammar::Cursor::Create(std::move(compiled), model().vocab_size, model().eos_ids);
  }

  double MostQueueSeconds(const Request& request) const {
    const double most = ToSeconds(options_.max_queue_delay);
    if (request.deadline == TimePoint::max()) return most;
    return std::min(most, ToSeconds(request.deadline - clock_.Now()));
  }

  void Run() {
    while (std::optional<std::deque<Command>> commands = AwaitWork()) {
      for (Command& command : *commands) Apply(command);
      core_.Step();
      PublishState();
      if (const Status failure = core_.failure(); !failure.ok()) return End(failure);
    }
  }

  // Requests that came meanwhile end as the others did.
  void End(const Status& failure) EXCLUDES(mutex_) {
    spdlog::error("the engine ends: {}", std::string(failure.message()));
    failed_ = true;
    std::deque<Command> rest;
    {
      MutexLock lock(mutex_);
      failure_ = failure;
      phase_ = Phase::kStopped;
      rest = std::exchange(mailbox_, {});
      stopped_.notify_all();
    }
    for (const Command& command : rest) {
      if (command.request) FailAllChoices(*command.request, *command.sink, failure);
    }
    if (options_.on_failure) options_.on_failure(failure);
  }

  // Sleeps while there is nothing to do; nothing when the engine is to end.
  std::optional<std::deque<Command>> AwaitWork() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (core_.idle() && mailbox_.empty()) GoIdle();
    while (core_.idle() && mailbox_.empty() && phase_ == Phase::kServing) wake_.wait(mutex_);
    if (phase_ == Phase::kCancelling) core_.CancelAll();
    if (phase_ != Phase::kServing && core_.idle() && mailbox_.empty()) {
      phase_ = Phase::kStopped;
      stopped_.notify_all();
      return std::nullopt;
    }
    last_progress_ = clock_.Now().time_since_epoch().count();
    busy_ = true;
    mailed_requests_ = 0;
    return std::exchange(mailbox_, {});
  }

  void GoIdle() {
    busy_ = false;
#ifndef NDEBUG
    const Status whole = core_.CheckIntegrity();
    KVASIR_CHECK(whole.ok(), whole.ToString().c_str());
#endif
  }

  void Apply(Command& command) {
    if (command.request == nullptr) return core_.Cancel(command.cancel_id, command.choice);
    const Status added = core_.Add(command.request, command.sink, std::move(command.cursor));
    if (!added.ok()) FailAllChoices(*command.request, *command.sink, added);
  }

  void PublishState() EXCLUDES(mutex_) {
    const EngineStats stats = core_.stats();
    const int64_t retry_after = core_.RetryAfterSeconds();
    const double queue_seconds = core_.QueueSeconds();
    MutexLock lock(mutex_);
    stats_ = stats;
    retry_after_seconds_ = retry_after;
    queue_seconds_ = queue_seconds;
    queued_ = core_.queued() + mailed_requests_;
  }

  const std::unique_ptr<runtime::Runner> runner_;
  grammar::Compiler* const compiler_;
  const EngineOptions options_;
  const Clock& clock_;
  Core core_;  // the engine thread's, but for the immutable model()

  mutable Mutex mutex_;
  CondVar wake_;
  CondVar stopped_;
  Phase phase_ GUARDED_BY(mutex_) = Phase::kServing;
  std::deque<Command> mailbox_ GUARDED_BY(mutex_);
  int32_t mailed_requests_ GUARDED_BY(mutex_) = 0;  // in the mailbox
  int32_t queued_ GUARDED_BY(mutex_) = 0;           // accepted and not started
  int64_t retry_after_seconds_ GUARDED_BY(mutex_) = 1;
  double queue_seconds_ GUARDED_BY(mutex_) = 0;  // predicted for who comes next
  EngineStats stats_ GUARDED_BY(mutex_);
  Status failure_ GUARDED_BY(mutex_);  // the runner's, once the thread has ended for it

  std::atomic<bool> failed_{false};
  std::atomic<bool> busy_{false};
  std::atomic<Duration::rep> last_progress_{0};

  Mutex join_mutex_;
  std::thread thread_;  // last: it uses all of the above
};

LocalEngine::LocalEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LocalEngine::~LocalEngine() = default;

StatusOr<std::unique_ptr<LocalEngine>> LocalEngine::Create(std::unique_ptr<runtime::Runner> runner,
                                                           ModelInfo model, EngineOptions options,
                                                           const Clock& clock,
                                                           grammar::Compiler* compiler) {
  KVASIR_RETURN_IF_ERROR(CheckOptions(options));
  KVASIR_ASSIGN_OR_RETURN(ModelInfo fitted, FitModel(std::move(model), *runner));
  KVASIR_RETURN_IF_ERROR(CheckDraftRunner(fitted, options));
  return std::unique_ptr<LocalEngine>(new LocalEngine(std::make_unique<Impl>(
      std::move(runner), std::move(fitted), std::move(options), clock, compiler)));
}

const ModelInfo& LocalEngine::Model() const { return impl_->model(); }

Status LocalEngine::Submit(std::shared_ptr<const Request> request,
                           std::shared_ptr<TokenSink> sink) {
  return impl_->Submit(std::move(request), std::move(sink));
}

void LocalEngine::Cancel(const std::string& request_id, std::optional<int32_t> choice) {
  impl_->Cancel(request_id, choice);
}

EngineStats LocalEngine::Stats() const { return impl_->stats(); }
bool LocalEngine::Healthy() const { return impl_->healthy(); }

Status LocalEngine::Drain(Duration grace) {
  impl_->Stop(grace);
  KVASIR_RETURN_IF_ERROR(impl_->failure());
  return impl_->CheckIntegrity();
}

}  // namespace kvasir::engine
