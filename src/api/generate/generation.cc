#include "api/generate/generation.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "api/generate/submission.h"
#include "api/protocol/error.h"
#include "base/clock.h"

namespace kvasir::api {
namespace {

struct Choice {
  explicit Choice(const ChoiceOptions& options) : stream(options) {}

  ChoiceStream stream;
  ChoiceDelta whole;  // of a choice that is not streamed
  int64_t tokens = 0;
  TimePoint last_token{};
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

double MeanLogprob(const ChoiceDelta& whole) {
  double sum = 0;
  for (const TokenOut& token : whole.tokens) sum += token.logprob;
  return sum / static_cast<double>(std::max<size_t>(1, whole.tokens.size()));
}

class Generation final : public Submission {
 public:
  Generation(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
             GenerationJob job);

 private:
  void Handle(Arrived arrived) override;
  void Flush() override;
  void AnswerError(const Status& status) override;

  void Observe(const Arrived& arrived, Choice& choice, const ChoiceDelta& delta);
  void Log(const Arrived& arrived);
  void BeginStream();
  void Finish();
  std::vector<int32_t> BestChoices(size_t prompt) const;
  AnswerPart Part(size_t prompt, int32_t choice, const ChoiceDelta& delta) const;

  const GenerationJob job_;
  const int32_t made_;      // choices of a prompt
  const int32_t answered_;  // of those
  ChoiceOptions choice_options_;
  std::vector<Choice> choices_;    // prompt * made_ + choice
  std::vector<bool> first_token_;  // of each prompt: seen
  std::vector<std::vector<TokenOut>> prompt_logprobs_;
  std::vector<int32_t> cached_tokens_;
  size_t unfinished_ = 0;
  Usage usage_;
  bool streaming_ = false;  // the head is out
  std::string out_;         // pieces of the events at hand, written together
};

Generation::Generation(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
                       GenerationJob job)
    : Submission(engine, metrics, std::move(exchange), job.requests),
      job_(std::move(job)),
      made_(job_.requests.front()->sampling.n),
      answered_(job_.options.sampling.n),
      choice_options_(MakeChoiceOptions(job_)),
      first_token_(job_.requests.size(), false),
      prompt_logprobs_(job_.requests.size()),
      cached_tokens_(job_.requests.size(), 0),
      unfinished_(job_.requests.size() * made_) {
  choices_.reserve(unfinished_);
  for (size_t i = 0; i < unfinished_; ++i) choices_.emplace_back(choice_options_);
  for (const auto& request : job_.requests) {
    usage_.prompt_tokens += static_cast<int64_t>(request->prompt_ids.size());
  }
}

void Generation::Handle(Arrived arrived) {
  TokenEvent& event = arrived.event;
  Choice& choice = choices_[arrived.prompt * made_ + event.choice];
  if (choice.stream.finished()) return;  // what the engine made before it saw the cancel
  usage_.cached_tokens += event.cached_tokens - cached_tokens_[arrived.prompt];
  cached_tokens_[arrived.prompt] = event.cached_tokens;
  if (const Status early = EndedEarly(arrived); !early.ok()) return Fail(early);
  std::move(event.prompt.begin(), event.prompt.end(),
            std::back_inserter(prompt_logprobs_[arrived.prompt]));
  ChoiceDelta delta = choice.stream.Add(event);
  Observe(arrived, choice, delta);
  if (delta.cancel_engine) CancelChoice(arrived.prompt, event.choice);
  const bool length = delta.finish_reason == "length";
  if (!job_.options.stream) {
    choice.whole.Append(std::move(delta));
  } else if (event.choice < answered_ && (!event.tokens.empty() || choice.stream.finished())) {
    job_.writer->Write(Part(arrived.prompt, event.choice, delta), usage_, &out_);
  }
  if (!choice.stream.finished()) return;
  (length ? metrics().finished_length : metrics().finished_stop).Increment();
  if (--unfinished_ == 0) Finish();
}

void Generation::Observe(const Arrived& arrived, Choice& choice, const ChoiceDelta& delta) {
  const int64_t tokens = static_cast<int64_t>(delta.tokens.size());
  if (tokens == 0) return;
  usage_.completion_tokens += tokens;
  usage_.reasoning_tokens += delta.reasoning_tokens;
  if (!first_token_[arrived.prompt]) {
    first_token_[arrived.prompt] = true;
    metrics().time_to_first_token.Observe(
        ToSeconds(arrived.at - job_.requests[arrived.prompt]->arrival));
  }
  if (choice.tokens > 0) {
    metrics().inter_token_latency.Observe(ToSeconds(arrived.at - choice.last_token) /
                                          static_cast<double>(tokens));
  }
  choice.tokens += tokens;
  choice.last_token = arrived.at;
  Log(arrived);
}

void Generation::Log(const Arrived& arrived) {
  ExchangeRecord& log = exchange().log();
  log.completion_tokens = usage_.completion_tokens;
  log.cached_tokens = usage_.cached_tokens;
  if (log.time_to_first_token) return;
  log.time_to_first_token = arrived.at - job_.requests[arrived.prompt]->arrival;
}

AnswerPart Generation::Part(size_t prompt, int32_t choice, const ChoiceDelta& delta) const {
  return {.index = static_cast<int32_t>(prompt) * answered_ + choice,
          .prompt_ids = &job_.requests[prompt]->prompt_ids,
          .prompt_logprobs = &prompt_logprobs_[prompt],
          .cached_tokens = cached_tokens_[prompt],
          .echo = job_.echoes.empty() ? nullptr : &job_.echoes[prompt],
          .delta = &delta};
}

void Generation::BeginStream() {
  if (std::exchange(streaming_, true)) return;
  exchange().BeginStream({.content_type = std::string(job_.writer->StreamType()),
                          .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}});
}

void Generation::Flush() {
  if (out_.empty()) return;
  BeginStream();
  exchange().Write(std::exchange(out_, {}));
}

// Beams come best first; of sampled choices those with the highest log-probability a token.
std::vector<int32_t> Generation::BestChoices(size_t prompt) const {
  std::vector<int32_t> order(made_);
  for (int32_t i = 0; i < made_; ++i) order[i] = i;
  if (made_ > answered_ && !job_.options.beam_search) {
    const auto score = [&](int32_t i) { return MeanLogprob(choices_[prompt * made_ + i].whole); };
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return score(a) > score(b); });
  }
  order.resize(answered_);
  return order;
}

void Generation::Finish() {
  Conclude(usage_.completion_tokens);
  if (job_.options.stream) {
    job_.writer->End(usage_, &out_);
    Flush();
    return exchange().End();
  }
  std::vector<AnswerPart> parts;
  for (size_t prompt = 0; prompt < job_.requests.size(); ++prompt) {
    int32_t place = 0;
    for (const int32_t choice : BestChoices(prompt)) {
      parts.push_back(Part(prompt, place++, choices_[prompt * made_ + choice].whole));
    }
  }
  exchange().Respond({.body = Dump(job_.writer->Whole(parts, usage_))});
}

void Generation::AnswerError(const Status& status) {
  const ErrorObject error = ToErrorObject(status);
  if (!streaming_ && out_.empty()) return exchange().Respond(job_.error(error));
  job_.writer->Fail(error, &out_);
  Flush();
  exchange().End();
}

}  // namespace

void StartGeneration(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
                     GenerationJob job) {
  std::make_shared<Generation>(engine, metrics, std::move(exchange), std::move(job))->Start();
}

}  // namespace kvasir::api
