#include "api/generate/submission.h"

#include <utility>

#include "api/protocol/error.h"

namespace kvasir::api {

struct Submission::Sink final : TokenSink {
  Sink(std::shared_ptr<Submission> submission, size_t prompt)
      : submission(std::move(submission)), prompt(prompt) {}
  void OnEvent(TokenEvent event) override { submission->Deliver(prompt, std::move(event)); }

  const std::shared_ptr<Submission> submission;
  const size_t prompt;
};

Submission::Submission(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
                       std::vector<std::shared_ptr<const Request>> requests)
    : engine_(engine),
      metrics_(metrics),
      exchange_(std::move(exchange)),
      requests_(std::move(requests)) {}

void Submission::Start() {
  int64_t prompt_tokens = 0;
  for (const auto& request : requests_) {
    prompt_tokens += static_cast<int64_t>(request->prompt_ids.size());
  }
  exchange_->log().prompt_tokens = prompt_tokens;
  exchange_->OnGone([self = shared_from_this()] {
    self->over_ = true;
    self->metrics_.finished_abort.Increment();
    self->CancelAll();
  });
  for (const auto& request : requests_) {
    if (over_) return;  // the client left while its prompt was tokenized
    const Status status =
        engine_.Submit(request, std::make_shared<Sink>(shared_from_this(), submitted_));
    if (!status.ok()) return Fail(FieldFromMessage(status));
    ++submitted_;
  }
}

void Submission::Deliver(size_t prompt, TokenEvent event) {
  {
    MutexLock lock(mutex_);
    mailbox_.push_back({prompt, SteadyClock().Now(), std::move(event)});
    if (std::exchange(scheduled_, true)) return;
  }
  exchange_->Post([self = shared_from_this()] { self->Drain(); });
}

void Submission::Drain() {
  std::vector<Arrived> arrived;
  {
    MutexLock lock(mutex_);
    arrived.swap(mailbox_);
    scheduled_ = false;
  }
  for (Arrived& a : arrived) {
    if (over_) return;
    Handle(std::move(a));
  }
  if (!over_) Flush();
}

Status Submission::EndedEarly(const Arrived& arrived) const {
  if (arrived.event.finish == FinishReason::kError) {
    return arrived.event.error.ok() ? absl::InternalError("the engine failed")
                                    : arrived.event.error;
  }
  if (arrived.event.finish != FinishReason::kCancelled) return absl::OkStatus();
  if (arrived.at >= requests_[arrived.prompt]->deadline) {
    return absl::DeadlineExceededError("the request took longer than the server allows");
  }
  return absl::UnavailableError("the server ended the request");
}

void Submission::Fail(const Status& status) {
  over_ = true;
  metrics_.finished_error.Increment();
  CancelAll();
  AnswerError(status);
}

void Submission::Conclude(int64_t generated_tokens) {
  over_ = true;
  const TimePoint now = SteadyClock().Now();
  for (const auto& request : requests_) {
    metrics_.e2e_request_latency.Observe(ToSeconds(now - request->arrival));
    metrics_.request_prompt_tokens.Observe(static_cast<double>(request->prompt_ids.size()));
  }
  metrics_.request_generation_tokens.Observe(static_cast<double>(generated_tokens));
}

void Submission::CancelChoice(size_t prompt, int32_t choice) {
  engine_.Cancel(requests_[prompt]->id, choice);
}

void Submission::CancelAll() {
  for (size_t i = 0; i < submitted_; ++i) engine_.Cancel(requests_[i]->id, std::nullopt);
}

}  // namespace kvasir::api
