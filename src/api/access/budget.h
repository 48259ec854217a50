// What one API key may use, and what its requests have used of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "api/access/token_bucket.h"
#include "base/mutex.h"
#include "base/status.h"

namespace kvasir::api {

struct Limits {  // 0: none
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;  // of prompts and outputs together
  int64_t max_concurrent = 0;     // requests under way

  bool any() const {
    return requests_per_minute > 0 || tokens_per_minute > 0 || max_concurrent > 0;
  }
};

class Visit;

// Thread-safe. Each budget of a minute may be used at once and then comes back steadily.
//
// Tokens are taken when a request is submitted: its prompt and, where the client gave a max_tokens,
// as many for each choice. At its end the difference to what was used is given back or, where the
// client set no bound, becomes debt that later requests wait for.
class Budget {
 public:
  Budget(std::string name, const Limits& limits);

  // Lets a request in: ResourceExhausted, with the time to wait, beyond a limit.
  static StatusOr<std::shared_ptr<Visit>> Admit(const std::shared_ptr<Budget>& budget,
                                                TimePoint now);

  // x-ratelimit-*, as the OpenAI API sends them.
  std::vector<std::pair<std::string, std::string>> Headers(TimePoint now) const;

 private:
  friend class Visit;

  Status Enter(TimePoint now);
  Status Reserve(int64_t tokens, TimePoint now) REQUIRES(mutex_);
  Status Refusal(const std::string& limit, Duration wait) const;

  const std::string name_;
  const Limits limits_;
  mutable Mutex mutex_;
  std::optional<TokenBucket> requests_ GUARDED_BY(mutex_);
  std::optional<TokenBucket> tokens_ GUARDED_BY(mutex_);
  int64_t under_way_ GUARDED_BY(mutex_) = 0;
};

// A request of a limited key, from its admission to its end. Thread-safe.
class Visit {
 public:
  explicit Visit(std::shared_ptr<Budget> budget) : budget_(std::move(budget)) {}
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

  // Takes the tokens that the request may use: ResourceExhausted when they are not there yet,
  // InvalidArgument when they never can be. After the end it does nothing.
  Status Reserve(int64_t tokens, TimePoint now);

  // `used`: tokens, whatever was reserved. Call once.
  void End(int64_t used, TimePoint now);

 private:
  const std::shared_ptr<Budget> budget_;
  // Guarded by the budget's mutex.
  int64_t reserved_ = 0;
  bool ended_ = false;
};

// As the OpenAI API spells it: 20ms, 1.5s, 6m0s.
std::string SpellDuration(Duration duration);

}  // namespace kvasir::api
