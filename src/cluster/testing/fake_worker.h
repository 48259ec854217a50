// An engine whose tokens are a function of the request, one a step, and that can die.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "core/engine_client.h"

namespace kvasir::cluster::testing {

// The token that every worker of the model draws.
inline TokenId TokenAt(const Request& request, int32_t choice, int32_t position) {
  uint64_t x = request.sampling.seed + 31 * request.prompt_ids[0] + 7 * choice;
  for (int32_t i = 0; i <= position; ++i) x = x * 6364136223846793005u + 1442695040888963407u;
  return static_cast<TokenId>(x >> 33) % 1000;
}

inline std::vector<TokenId> AnswerOf(const Request& request, int32_t choice) {
  std::vector<TokenId> out;
  for (int32_t i = 0; i < request.sampling.max_tokens; ++i) {
    out.push_back(TokenAt(request, choice, i));
  }
  return out;
}

inline std::shared_ptr<Request> MakeRequest(std::string id, TokenId prompt, int32_t n,
                                            int32_t max_tokens) {
  auto out = std::make_shared<Request>();
  out->id = std::move(id);
  out->prompt_ids = {prompt, 2, 3};
  out->sampling.n = n;
  out->sampling.max_tokens = max_tokens;
  out->sampling.seed = 5;
  return out;
}

inline ModelInfo FakeModel() {
  return {.name = "toy",
          .vocab_size = 1000,
          .max_model_len = 4096,
          .block_size = 16,
          .eos_ids = {0},
          .weights_fingerprint = "weights",
          .numerics_id = "numerics"};
}

// Thread-safe. Calls sinks on the threads that call it.
class FakeWorker final : public EngineClient {
 public:
  const ModelInfo& Model() const override { return model; }

  Status Submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink) override {
    MutexLock lock(mutex_);
    if (dead_) return absl::UnavailableError("dead");
    if (!refusal.ok()) return refusal;
    ++submitted_;
    const std::string id = request->id;
    const int32_t n = request->sampling.n;
    running_[id] = {std::move(request), std::move(sink), std::vector<int32_t>(n, 0)};
    changed_.notify_all();
    return absl::OkStatus();
  }

  void Cancel(const std::string& request_id, std::optional<int32_t> choice) override {
    std::vector<std::pair<std::shared_ptr<TokenSink>, TokenEvent>> out;
    {
      MutexLock lock(mutex_);
      const auto it = running_.find(request_id);
      if (it == running_.end()) return;
      for (int32_t c = 0; c < it->second.request->sampling.n; ++c) {
        if ((choice && *choice != c) || it->second.made[c] == kEnded) continue;
        it->second.made[c] = kEnded;
        out.push_back({it->second.sink, {.choice = c, .finish = FinishReason::kCancelled}});
      }
      DropEnded();
    }
    for (auto& [sink, event] : out) sink->OnEvent(std::move(event));
  }

  EngineStats Stats() const override {
    MutexLock lock(mutex_);
    EngineStats stats;
    stats.running = static_cast<int64_t>(running_.size());
    return stats;
  }
  bool Healthy() const override {
    MutexLock lock(mutex_);
    return !dead_;
  }

  // One token for each choice.
  void Step() {
    std::vector<std::pair<std::shared_ptr<TokenSink>, TokenEvent>> out;
    {
      MutexLock lock(mutex_);
      for (auto& [id, run] : running_) {
        const Request& request = *run.request;
        for (int32_t c = 0; c < request.sampling.n; ++c) {
          if (run.made[c] == kEnded) continue;
          TokenEvent event{.choice = c};
          event.tokens.push_back({.id = TokenAt(request, c, run.made[c])});
          if (++run.made[c] == request.sampling.max_tokens) {
            event.finish = FinishReason::kLength;
            run.made[c] = kEnded;
          }
          out.push_back({run.sink, std::move(event)});
        }
      }
      DropEnded();
    }
    for (auto& [sink, event] : out) sink->OnEvent(std::move(event));
  }

  void Kill() {
    std::map<std::string, Run> lost;
    {
      MutexLock lock(mutex_);
      dead_ = true;
      lost = std::exchange(running_, {});
    }
    for (auto& [id, run] : lost) {
      for (int32_t c = 0; c < run.request->sampling.n; ++c) {
        if (run.made[c] == kEnded) continue;
        run.sink->OnEvent({.choice = c,
                           .finish = FinishReason::kError,
                           .error = absl::UnavailableError("killed")});
      }
    }
  }
  void Revive() {
    MutexLock lock(mutex_);
    dead_ = false;
  }

  void AwaitRequests(int64_t running) {
    MutexLock lock(mutex_);
    while (static_cast<int64_t>(running_.size()) < running) changed_.wait(mutex_);
  }
  int64_t submitted() const {
    MutexLock lock(mutex_);
    return submitted_;
  }

  // Set before it is used.
  ModelInfo model = FakeModel();
  Status refusal;

 private:
  static constexpr int32_t kEnded = -1;
  struct Run {
    std::shared_ptr<const Request> request;
    std::shared_ptr<TokenSink> sink;
    std::vector<int32_t> made;  // tokens of each choice
  };

  void DropEnded() REQUIRES(mutex_) {
    for (auto it = running_.begin(); it != running_.end();) {
      bool open = false;
      for (const int32_t made : it->second.made) open = open || made != kEnded;
      it = open ? std::next(it) : running_.erase(it);
    }
  }

  mutable Mutex mutex_;
  CondVar changed_;
  bool dead_ GUARDED_BY(mutex_) = false;
  int64_t submitted_ GUARDED_BY(mutex_) = 0;
  std::map<std::string, Run> running_ GUARDED_BY(mutex_);
};

// Keeps what a request got, and lets a test wait for its end.
class KeepingSink final : public TokenSink {
 public:
  explicit KeepingSink(int32_t n) : tokens_(n), finish_(n), open_(n) {}

  void OnEvent(TokenEvent event) override {
    MutexLock lock(mutex_);
    for (const TokenOut& token : event.tokens) tokens_[event.choice].push_back(token.id);
    if (finish_[event.choice]) ++after_end_;
    if (event.finish && !finish_[event.choice]) {
      finish_[event.choice] = event.finish;
      error_ = event.error;
      --open_;
    }
    changed_.notify_all();
  }

  bool done() const {
    MutexLock lock(mutex_);
    return open_ == 0;
  }
  void AwaitEnd() {
    MutexLock lock(mutex_);
    while (open_ > 0) changed_.wait(mutex_);
  }
  void AwaitTokens(size_t count) {
    MutexLock lock(mutex_);
    while (tokens_[0].size() < count) changed_.wait(mutex_);
  }
  std::vector<TokenId> tokens(int32_t choice) const {
    MutexLock lock(mutex_);
    return tokens_[choice];
  }
  std::optional<FinishReason> finish(int32_t choice) const {
    MutexLock lock(mutex_);
    return finish_[choice];
  }
  Status error() const {
    MutexLock lock(mutex_);
    return error_;
  }
  int32_t after_end() const {
    MutexLock lock(mutex_);
    return after_end_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<std::vector<TokenId>> tokens_ GUARDED_BY(mutex_);
  std::vector<std::optional<FinishReason>> finish_ GUARDED_BY(mutex_);
  Status error_ GUARDED_BY(mutex_);
  int32_t open_ GUARDED_BY(mutex_);
  int32_t after_end_ GUARDED_BY(mutex_) = 0;  // events of choices that had ended
};

}  // namespace kvasir::cluster::testing
