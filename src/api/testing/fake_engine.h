// An engine that says what a test tells it to.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/engine_client.h"

namespace kvasir::api::testing {

inline TokenEvent Tokens(int32_t choice, std::string_view text,
                         std::optional<FinishReason> finish = std::nullopt) {
  TokenEvent event{.choice = choice, .finish = finish};
  for (const char c : text) event.tokens.push_back({.id = static_cast<unsigned char>(c)});
  return event;
}

// Thread-safe. By default each choice answers at once: one event a byte of `answer`, then the end
// token. With `manual`, the test sends the events.
class FakeEngine final : public EngineClient {
 public:
  FakeEngine() {
    model.name = "toy";
    model.vocab_size = 259;
    model.max_model_len = 20000;
    model.block_size = 16;
    model.eos_ids = {256};
    model.weights_fingerprint = "weights";
    model.numerics_id = "numerics";
  }

  const ModelInfo& Model() const override { return model; }

  Status Submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink) override {
    const std::lock_guard lock(mutex_);
    if (!submit_status.ok()) return submit_status;
    requests_.push_back(request);
    sinks_[request->id] = sink;
    changed_.notify_all();
    if (!manual) Answer(*request, *sink);
    return absl::OkStatus();
  }

  void Cancel(const std::string& request_id, std::optional<int32_t> choice) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert({request_id, choice.value_or(-1)});
    sinks_.erase(request_id);
    changed_.notify_all();
  }

  EngineStats Stats() const override { return stats; }
  bool Healthy() const override { return healthy; }

  // Waits until `count` requests were submitted, and returns the last of them.
  std::shared_ptr<const Request> WaitForRequest(size_t count) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [&] { return requests_.size() >= count; }))
      return nullptr;
    return requests_[count - 1];
  }

  // Waits until the request, or its choice, was cancelled (-1: all choices).
  bool WaitForCancel(const std::string& id, int32_t choice = -1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return cancelled_.contains({id, choice}); });
  }

  bool Cancelled(const std::string& id) const {
    const std::lock_guard lock(mutex_);
    return cancelled_.contains({id, -1});
  }

  // Does nothing when the request has been cancelled.
  void Send(const std::string& id, TokenEvent event) {
    std::shared_ptr<TokenSink> sink;
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = sinks_.find(id); it != sinks_.end()) sink = it->second;
    }
    if (sink != nullptr) sink->OnEvent(std::move(event));
  }

  size_t submitted() const {
    const std::lock_guard lock(mutex_);
    return requests_.size();
  }

  // Set before the server starts.
  ModelInfo model;
  EngineStats stats;
  bool healthy = true;
  bool manual = false;
  std::string answer = "hello";
  FinishReason finish = FinishReason::kStop;
  int32_t cached_tokens = 0;
  int32_t best = -1;  // the choice whose tokens are likelier than those of the others
  Status submit_status;

 private:
  static constexpr std::chrono::seconds kPatience{20};

  // Answers of a request about its prompt: embeddings {3, 4}, log-probabilities of -0.25.
  void AnswerPrompt(const Request& request, TokenSink& sink) const {
    TokenEvent event;
    if (request.pooling != Pooling::kNone) event.embedding = {3, 4};
    for (size_t i = 1; request.prompt_logprobs >= 0 && i < request.prompt_ids.size(); ++i) {
      event.prompt.push_back({.id = request.prompt_ids[i], .logprob = -0.25f});
    }
    sink.OnEvent(std::move(event));
  }

  void Answer(const Request& request, TokenSink& sink) const {
    if (request.NeedsPromptRows()) AnswerPrompt(request, sink);
    if (request.sampling.max_tokens == 0) {
      for (int32_t choice = 0; choice < request.sampling.n; ++choice) {
        sink.OnEvent({.choice = choice, .finish = FinishReason::kLength});
      }
      return;
    }
    for (int32_t choice = 0; choice < request.sampling.n; ++choice) {
      for (const char c : answer) {
        TokenEvent event = Tokens(choice, std::string_view(&c, 1));
        if (request.sampling.logprobs >= 0) {
          event.tokens[0].logprob = choice == best ? -0.1f : -0.5f;
          event.tokens[0].top_logprobs = {{event.tokens[0].id, -0.5f}, {'x', -1.5f}};
          event.tokens[0].top_logprobs.resize(request.sampling.logprobs);
        }
        event.cached_tokens = cached_tokens;
        sink.OnEvent(std::move(event));
      }
      TokenEvent last{.choice = choice, .finish = finish, .cached_tokens = cached_tokens};
      if (finish == FinishReason::kStop) last.tokens.push_back({.id = 256});
      if (finish == FinishReason::kError) last.error = absl::InternalError("planted");
      sink.OnEvent(std::move(last));
    }
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<const Request>> requests_;
  std::map<std::string, std::shared_ptr<TokenSink>> sinks_;
  std::set<std::pair<std::string, int32_t>> cancelled_;
};

}  // namespace kvasir::api::testing
