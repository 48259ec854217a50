#include "api/access/budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "api/protocol/error.h"
#include "core/retry_after.h"

namespace kvasir::api {
namespace {

std::optional<TokenBucket> BucketOf(int64_t per_minute) {
  if (per_minute == 0) return std::nullopt;
  const double capacity = static_cast<double>(per_minute);
  return TokenBucket(capacity, capacity / 60);
}

}  // namespace

std::string SpellDuration(Duration duration) {
  const int64_t ms = std::chrono::ceil<std::chrono::milliseconds>(duration).count();
  if (ms < 1000) return fmt::format("{}ms", ms);
  const double seconds = static_cast<double>(ms % 60000) / 1e3;
  if (ms < 60000) return fmt::format("{}s", seconds);
  return fmt::format("{}m{}s", ms / 60000, seconds);
}

Budget::Budget(std::string name, const Limits& limits)
    : name_(std::move(name)),
      limits_(limits),
      requests_(BucketOf(limits.requests_per_minute)),
      tokens_(BucketOf(limits.tokens_per_minute)) {}

Status Budget::Refusal(const std::string& limit, Duration wait) const {
  Status status = absl::ResourceExhaustedError(
      fmt::format("rate limit reached: the key '{}' may {}", name_, limit));
  SetRetryAfter(ToSeconds(wait), status);
  return status;
}

Status Budget::Enter(TimePoint now) {
  MutexLock lock(mutex_);
  if (limits_.max_concurrent > 0 && under_way_ >= limits_.max_concurrent) {
    return Refusal(fmt::format("have {} requests under way at a time", limits_.max_concurrent),
                   std::chrono::seconds(1));
  }
  // In debt, or with nothing left, no prompt can be paid for: say so before it is tokenized.
  if (tokens_ && tokens_->Until(1, now) > Duration::zero()) {
    return Refusal(fmt::format("use {} tokens a minute", limits_.tokens_per_minute),
                   tokens_->Until(1, now));
  }
  if (requests_ && !requests_->Take(1, now)) {
    return Refusal(fmt::format("send {} requests a minute", limits_.requests_per_minute),
                   requests_->Until(1, now));
  }
  ++under_way_;
  return absl::OkStatus();
}

StatusOr<std::shared_ptr<Visit>> Budget::Admit(const std::shared_ptr<Budget>& budget,
                                               TimePoint now) {
  KVASIR_RETURN_IF_ERROR(budget->Enter(now));
  return std::make_shared<Visit>(budget);
}

Status Budget::Reserve(int64_t tokens, TimePoint now) {
  const double amount = static_cast<double>(tokens);
  if (!tokens_ || tokens_->Take(amount, now)) return absl::OkStatus();
  const std::string limit =
      fmt::format("use {} tokens a minute, and this request asks for up to {}",
                  limits_.tokens_per_minute, tokens);
  if (tokens > limits_.tokens_per_minute) {
    return WithCode(
        absl::InvalidArgumentError(fmt::format("too large: the key '{}' may {}", name_, limit)),
        "request_exceeds_rate_limit");
  }
  return Refusal(limit, tokens_->Until(amount, now));
}

std::vector<std::pair<std::string, std::string>> Budget::Headers(TimePoint now) const {
  MutexLock lock(mutex_);
  std::vector<std::pair<std::string, std::string>> headers;
  const auto add = [&](const std::optional<TokenBucket>& bucket, const char* what) {
    if (!bucket) return;
    const auto left = static_cast<int64_t>(std::floor(std::max(0.0, bucket->Level(now)) + 1e-6));
    const auto header = [what](const char* name) {
      return fmt::format("x-ratelimit-{}-{}", name, what);
    };
    headers.emplace_back(header("limit"), fmt::format("{:.0f}", bucket->capacity()));
    headers.emplace_back(header("remaining"), std::to_string(left));
    headers.emplace_back(header("reset"), SpellDuration(bucket->Until(bucket->capacity(), now)));
  };
  add(requests_, "requests");
  add(tokens_, "tokens");
  return headers;
}

Status Visit::Reserve(int64_t tokens, TimePoint now) {
  MutexLock lock(budget_->mutex_);
  if (ended_) return absl::OkStatus();
  KVASIR_RETURN_IF_ERROR(budget_->Reserve(tokens, now));
  reserved_ += tokens;
  return absl::OkStatus();
}

void Visit::End(int64_t used, TimePoint now) {
  MutexLock lock(budget_->mutex_);
  if (std::exchange(ended_, true)) return;
  --budget_->under_way_;
  if (budget_->tokens_) budget_->tokens_->Settle(static_cast<double>(used - reserved_), now);
}

}  // namespace kvasir::api
