#include "api/access/token_bucket.h"

#include <algorithm>
#include <cmath>

namespace kvasir::api {
namespace {

constexpr double kRounding = 1e-6;  // of a level that is a sum of many small ones

}  // namespace

double TokenBucket::Level(TimePoint now) const {
  if (!updated_ || now <= *updated_) return level_;
  return std::min(capacity_, level_ + ToSeconds(now - *updated_) * per_second_);
}

void TokenBucket::Advance(TimePoint now) {
  level_ = Level(now);
  updated_ = updated_ ? std::max(*updated_, now) : now;
}

bool TokenBucket::Take(double amount, TimePoint now) {
  Advance(now);
  if (amount > level_ + kRounding) return false;
  level_ -= amount;
  return true;
}

void TokenBucket::Settle(double amount, TimePoint now) {
  Advance(now);
  level_ = std::min(capacity_, level_ - amount);
}

Duration TokenBucket::Until(double amount, TimePoint now) const {
  const double missing = std::min(amount, capacity_) - Level(now);
  if (missing <= kRounding) return Duration::zero();
  return Duration(static_cast<Duration::rep>(std::ceil(missing / per_second_ * 1e9)));
}

}  // namespace kvasir::api
