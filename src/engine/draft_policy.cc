#include "engine/draft_policy.h"

#include <algorithm>

namespace kvasir::engine {
namespace {

constexpr double kForget = 0.8;     // of the record, at each observation
constexpr double kPriorHits = 0.6;  // a new sequence is given some credit
constexpr double kPriorMisses = 0.4;
// Predictions are not exact: what is expected to gain less than this is not tried.
constexpr double kMargin = 1.02;
// Drafts may lose this share of the time of a sequence, and at first a few steps; what they won
// long ago is no credit.
constexpr double kAllowance = 0.01;
constexpr double kFirstSteps = 2;
constexpr double kMostSteps = 8;
// The same of reading, for all sequences together.
constexpr double kReadingAllowance = 0.015;
constexpr double kFirstReadingSteps = 50;
constexpr double kMostReadingSteps = 1000;

}  // namespace

void DraftRecord::Observe(int32_t tried, int32_t kept) {
  hits_ = kForget * hits_ + kept;
  misses_ = kForget * misses_ + (kept < tried ? 1 : 0);
  skipped_ = 0;
}

void DraftRecord::Pass(double step_seconds) {
  balance_ += (started_ ? kAllowance : kFirstSteps) * step_seconds;
  balance_ = std::min(balance_, kMostSteps * step_seconds);
  started_ = true;
}

void ReadingAccount::Pass(double step_seconds) {
  balance_ += (started_ ? kReadingAllowance : kFirstReadingSteps) * step_seconds;
  balance_ = std::min(balance_, kMostReadingSteps * step_seconds);
  started_ = true;
}

double DraftRecord::chance() const {
  return (hits_ + kPriorHits) / (hits_ + misses_ + kPriorHits + kPriorMisses);
}

int32_t BestDrafts(double chance, int32_t most, const DraftCost& cost) {
  int32_t best = 0;
  double best_rate = kMargin * cost.tokens / cost.step;
  double expected = cost.tokens;
  double all = 1;  // the chance that all drafts so far come true
  for (int32_t drafts = 1; drafts <= most; ++drafts) {
    all *= chance;
    expected += all;
    const double rate = expected / (cost.step + drafts * cost.draft);
    if (rate > best_rate) {
      best = drafts;
      best_rate = rate;
    }
  }
  return best;
}

}  // namespace kvasir::engine
