// The requests of one HTTP request on their way through the engine and back.
#pragma once

#include <memory>
#include <vector>

#include "api/http/exchange.h"
#include "api/metrics.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "core/engine_client.h"

namespace kvasir::api {

// Submits the requests, brings their events to the exchange's executor in order, and cancels what
// still runs when the client goes or one of them fails. Everything runs on the executor but
// Deliver.
class Submission : public std::enable_shared_from_this<Submission> {
 public:
  // `engine` and `metrics` outlive every submission.
  Submission(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
             std::vector<std::shared_ptr<const Request>> requests);
  virtual ~Submission() = default;

  void Start();

 protected:
  struct Arrived {
    size_t prompt = 0;  // the request's place
    TimePoint at{};     // when the engine made it, not when this thread came to look
    TokenEvent event;
  };

  // Not after the submission is over.
  virtual void Handle(Arrived arrived) = 0;
  // Behind all events that came together.
  virtual void Flush() {}
  // Answers the client: a request was refused, or ended early. All are cancelled already.
  virtual void AnswerError(const Status& status) = 0;

  void Fail(const Status& status);
  // Ok, or why an event ends its choice without an answer.
  Status EndedEarly(const Arrived& arrived) const;
  // Later events mean nothing: the answer is complete. Counts what all answers have in common.
  void Conclude(int64_t generated_tokens);
  void CancelChoice(size_t prompt, int32_t choice);

  bool over() const { return over_; }
  const std::vector<std::shared_ptr<const Request>>& requests() const { return requests_; }
  Exchange& exchange() const { return *exchange_; }
  Metrics& metrics() const { return metrics_; }

 private:
  struct Sink;

  // On the engine's thread: leaves the event and, if none is under way, asks the executor to look.
  // What waits is bounded by what the requests may generate.
  void Deliver(size_t prompt, TokenEvent event);
  void Drain();
  void CancelAll();

  EngineClient& engine_;
  Metrics& metrics_;
  const std::shared_ptr<Exchange> exchange_;
  const std::vector<std::shared_ptr<const Request>> requests_;
  size_t submitted_ = 0;
  bool over_ = false;  // answered, failed or abandoned

  Mutex mutex_;
  std::vector<Arrived> mailbox_ GUARDED_BY(mutex_);
  bool scheduled_ GUARDED_BY(mutex_) = false;
};

}  // namespace kvasir::api
