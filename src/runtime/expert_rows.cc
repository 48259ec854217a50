#include "runtime/expert_rows.h"

namespace kvasir::runtime {

void ExpertRows::Set(const float* routing, int64_t stride, int64_t tokens, int32_t used,
                     int32_t experts) {
  const auto expert = [&](int64_t token, int32_t rank) {
    return static_cast<int32_t>(routing[token * stride + 2 * rank]);
  };
  used_ = used;
  begin_.assign(experts + 1, 0);
  rows_.resize(tokens * used);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int32_t r = 0; r < used; ++r) ++begin_[expert(t, r) + 1];
  }
  for (int32_t e = 0; e < experts; ++e) begin_[e + 1] += begin_[e];
  std::vector<int64_t> next(begin_.begin(), begin_.end() - 1);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int32_t r = 0; r < used; ++r) rows_[t * used + r] = next[expert(t, r)]++;
  }
}

}  // namespace kvasir::runtime
