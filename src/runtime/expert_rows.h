// Where the rows that tokens send to experts lie: sorted by expert, then by token.
#pragma once

#include <cstdint>
#include <vector>

namespace kvasir::runtime {

class ExpertRows {
 public:
  // `routing` holds for each of the `tokens` `used` pairs (expert, weight), `stride` floats from
  // one token to the next.
  void Set(const float* routing, int64_t stride, int64_t tokens, int32_t used, int32_t experts);

  // Rows [begin(e), begin(e + 1)) are those of expert e.
  int64_t begin(int32_t expert) const { return begin_[expert]; }
  int64_t row(int64_t token, int32_t rank) const { return rows_[token * used_ + rank]; }

 private:
  int32_t used_ = 0;
  std::vector<int64_t> begin_;  // [experts + 1]
  std::vector<int64_t> rows_;   // [token][rank]
};

}  // namespace kvasir::runtime
