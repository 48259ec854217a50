#include "api/generate/generation.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

#include "api/protocol/error.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace kvasir::api {
namespace {

TimePoint Now() { return SteadyClock().Now(); }

struct Arrived {
  size_t prompt = 0;
  TimePoint at{};  // when the engine made it, not when this thread came to look
  TokenEvent event;
};

struct Choice {
  explicit Choice(const ChoiceOptions& options) : stream(options) {}

  ChoiceStream stream;
  ChoiceDelta whole;    // of a choice that is not streamed
  bool opened = false;  // its first chunk is out
  int64_t tokens = 0;
  TimePoint last_token{};
};

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
             GenerationJob job);

  void Start();

  // On the engine's thread: leaves the event and, if none is under way, asks the executor to look.
  // What waits is bounded by what the requests may generate.
  void Deliver(size_t prompt, TokenEvent event);

 private:
  struct Sink;

  void Drain();
  void Handle(Arrived arrived);
  void Observe(const Arrived& arrived, Choice& choice, int64_t tokens);
  void WriteChunks(size_t index, const ChoiceDelta& delta);
  void WriteChunk(const Json& chunk);
  void BeginStream();
  void Finish();
  void Fail(const Status& status);
  void CancelAll();
  Status EndedEarly(const Arrived& arrived) const;
  AnswerPart Part(size_t index, const ChoiceDelta& delta) const;
  bool HasNews(const ChoiceDelta& delta) const;

  EngineClient& engine_;
  Metrics& metrics_;
  const std::shared_ptr<Exchange> exchange_;
  const GenerationJob job_;
  const size_t n_;
  ChoiceOptions choice_options_;
  std::vector<Choice> choices_;    // prompt * n + choice
  std::vector<bool> first_token_;  // of each prompt: seen
  std::vector<int32_t> cached_tokens_;
  size_t submitted_ = 0;
  size_t unfinished_ = 0;
  Usage usage_;
  bool streaming_ = false;  // the head is out
  bool over_ = false;       // answered, failed or abandoned: later events mean nothing
  std::string out_;         // chunks of the events at hand, written together

  Mutex mutex_;
  std::vector<Arrived> mailbox_ GUARDED_BY(mutex_);
  bool scheduled_ GUARDED_BY(mutex_) = false;
};

struct Generation::Sink final : TokenSink {
  Sink(std::shared_ptr<Generation> generation, size_t prompt)
      : generation(std::move(generation)), prompt(prompt) {}
  void OnEvent(TokenEvent event) override { generation->Deliver(prompt, std::move(event)); }

  const std::shared_ptr<Generation> generation;
  const size_t prompt;
};

ChoiceOptions MakeChoiceOptions(const GenerationJob& job) {
  return {.tokenizer = job.tokenizer,
          .stop = job.options.stop,
          .include_stop = job.options.include_stop,
          .skip_special_tokens = job.options.skip_special_tokens,
          .continues_prompt = job.continues_prompt,
          .min_tokens = job.options.sampling.min_tokens,
          .stop_token_ids = job.options.sampling.stop_token_ids,
          .format = job.format,
          .reasoning = job.reasoning,
          .new_call_id = job.new_call_id};
}

Generation::Generation(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
                       GenerationJob job)
    : engine_(engine),
      metrics_(metrics),
      exchange_(std::move(exchange)),
      job_(std::move(job)),
      n_(static_cast<size_t>(job_.options.sampling.n)),
      choice_options_(MakeChoiceOptions(job_)),
      first_token_(job_.requests.size(), false),
      cached_tokens_(job_.requests.size(), 0) {
  unfinished_ = n_ * job_.requests.size();
  choices_.reserve(unfinished_);
  for (size_t i = 0; i < unfinished_; ++i) choices_.emplace_back(choice_options_);
  for (const auto& request : job_.requests) {
    usage_.prompt_tokens += static_cast<int64_t>(request->prompt_ids.size());
  }
}

void Generation::Start() {
  exchange_->OnGone([self = shared_from_this()] {
    self->over_ = true;
    self->metrics_.finished_abort.Increment();
    self->CancelAll();
  });
  for (const auto& request : job_.requests) {
    if (over_) return;  // the client left while its prompt was tokenized
    const Status status =
        engine_.Submit(request, std::make_shared<Sink>(shared_from_this(), submitted_));
    if (!status.ok()) return Fail(FieldFromMessage(status));
    ++submitted_;
  }
}

void Generation::Deliver(size_t prompt, TokenEvent event) {
  {
    MutexLock lock(mutex_);
    mailbox_.push_back({prompt, Now(), std::move(event)});
    if (std::exchange(scheduled_, true)) return;
  }
  exchange_->Post([self = shared_from_this()] { self->Drain(); });
}

void Generation::Drain() {
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
  if (over_ || out_.empty()) return;
  BeginStream();
  exchange_->Write(std::exchange(out_, {}));
}

void Generation::Handle(Arrived arrived) {
  const size_t index = arrived.prompt * n_ + static_cast<size_t>(arrived.event.choice);
  Choice& choice = choices_[index];
  if (choice.stream.finished()) return;  // what the engine made before it saw the cancel
  cached_tokens_[arrived.prompt] = arrived.event.cached_tokens;
  if (arrived.event.finish == FinishReason::kError ||
      arrived.event.finish == FinishReason::kCancelled) {
    return Fail(EndedEarly(arrived));
  }
  ChoiceDelta delta = choice.stream.Add(arrived.event);
  Observe(arrived, choice, static_cast<int64_t>(delta.tokens.size()));
  if (delta.cancel_engine) {
    engine_.Cancel(job_.requests[arrived.prompt]->id, arrived.event.choice);
  }
  const bool length = delta.finish_reason == "length";
  if (job_.options.stream) {
    WriteChunks(index, delta);
  } else {
    choice.whole.Append(std::move(delta));
  }
  if (!choice.stream.finished()) return;
  (length ? metrics_.finished_length : metrics_.finished_stop).Increment();
  if (--unfinished_ == 0) Finish();
}

void Generation::Observe(const Arrived& arrived, Choice& choice, int64_t tokens) {
  if (tokens == 0) return;
  usage_.completion_tokens += tokens;
  if (!first_token_[arrived.prompt]) {
    first_token_[arrived.prompt] = true;
    metrics_.time_to_first_token.Observe(
        ToSeconds(arrived.at - job_.requests[arrived.prompt]->arrival));
  }
  if (choice.tokens > 0) {
    metrics_.inter_token_latency.Observe(ToSeconds(arrived.at - choice.last_token) /
                                         static_cast<double>(tokens));
  }
  choice.tokens += tokens;
  choice.last_token = arrived.at;
}

AnswerPart Generation::Part(size_t index, const ChoiceDelta& delta) const {
  return {.index = static_cast<int32_t>(index),
          .prompt_ids = &job_.requests[index / n_]->prompt_ids,
          .delta = &delta};
}

// Text may be held back for a while; a chunk that would say nothing is not sent.
bool Generation::HasNews(const ChoiceDelta& delta) const {
  const bool tokens_count = job_.writer->head().logprobs || job_.writer->head().token_ids;
  return !delta.text.empty() || !delta.reasoning.empty() || !delta.tool_calls.empty() ||
         !delta.finish_reason.empty() || (tokens_count && !delta.tokens.empty());
}

void Generation::WriteChunks(size_t index, const ChoiceDelta& delta) {
  Choice& choice = choices_[index];
  const bool first = !std::exchange(choice.opened, true);
  if (first) {
    const Json opening = job_.writer->Opening(Part(index, delta));
    if (!opening.is_null()) WriteChunk(opening);
  }
  if (HasNews(delta)) WriteChunk(job_.writer->Chunk(Part(index, delta), first));
}

void Generation::WriteChunk(const Json& chunk) {
  if (!job_.options.include_usage) {
    out_ += fmt::format("data: {}\n\n", Dump(chunk));
    return;
  }
  Json with_usage = chunk;
  with_usage["usage"] = job_.options.continuous_usage ? UsageJson(usage_) : Json(nullptr);
  out_ += fmt::format("data: {}\n\n", Dump(with_usage));
}

void Generation::BeginStream() {
  if (std::exchange(streaming_, true)) return;
  exchange_->BeginStream({.content_type = "text/event-stream; charset=utf-8",
                          .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}});
}

void Generation::Finish() {
  over_ = true;
  usage_.cached_tokens = 0;
  for (const int32_t cached : cached_tokens_) usage_.cached_tokens += cached;
  const TimePoint now = Now();
  for (const auto& request : job_.requests) {
    metrics_.e2e_request_latency.Observe(ToSeconds(now - request->arrival));
    metrics_.request_prompt_tokens.Observe(static_cast<double>(request->prompt_ids.size()));
  }
  metrics_.request_generation_tokens.Observe(static_cast<double>(usage_.completion_tokens));
  if (job_.options.stream) {
    if (job_.options.include_usage) {
      out_ += fmt::format("data: {}\n\n", Dump(job_.writer->UsageChunk(usage_)));
    }
    out_ += "data: [DONE]\n\n";
    BeginStream();
    exchange_->Write(std::exchange(out_, {}));
    return exchange_->End();
  }
  std::vector<AnswerPart> parts;
  for (size_t i = 0; i < choices_.size(); ++i) parts.push_back(Part(i, choices_[i].whole));
  exchange_->Respond({.body = Dump(job_.writer->Whole(parts, usage_))});
}

// Why a choice ended without an answer.
Status Generation::EndedEarly(const Arrived& arrived) const {
  if (arrived.event.finish == FinishReason::kError) {
    return arrived.event.error.ok() ? absl::InternalError("the engine failed")
                                    : arrived.event.error;
  }
  if (arrived.at >= job_.requests[arrived.prompt]->deadline) {
    return absl::DeadlineExceededError("the request took longer than the server allows");
  }
  return absl::UnavailableError("the server ended the request");
}

void Generation::Fail(const Status& status) {
  over_ = true;
  metrics_.finished_error.Increment();
  CancelAll();
  const ErrorObject error = ToErrorObject(status);
  if (!streaming_ && out_.empty()) return exchange_->Respond(ErrorResponse(error));
  BeginStream();
  out_ += fmt::format("data: {}\n\ndata: [DONE]\n\n", ErrorJson(error));
  exchange_->Write(std::exchange(out_, {}));
  exchange_->End();
}

void Generation::CancelAll() {
  for (size_t i = 0; i < submitted_; ++i) engine_.Cancel(job_.requests[i]->id, std::nullopt);
}

}  // namespace

void StartGeneration(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
                     GenerationJob job) {
  std::make_shared<Generation>(engine, metrics, std::move(exchange), std::move(job))->Start();
}

}  // namespace kvasir::api
