// Attention of one KV head over a context in BF16. A decode is one position of the query heads
// that share it: GB/s of K and V. A prefill is many positions at the context's end: GFLOP/s.
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/float16.h"
#include "ops/cpu/dispatch.h"

namespace kvasir::ops {
namespace {

// K, V and the queries of one head, and the running states of its rows.
class Head {
 public:
  Head(int32_t context, int32_t dim, int32_t rows, bool prefill)
      : context_(context), dim_(dim), rows_(rows), k_(int64_t{context} * dim), v_(k_.size()) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (uint16_t& x : k_) x = ToBf16(normal(random)).bits;
    for (uint16_t& x : v_) x = ToBf16(normal(random)).bits;
    queries_.resize(int64_t{rows} * dim);
    for (float& x : queries_) x = normal(random) / std::sqrt(static_cast<float>(dim));
    for (int32_t r = 0; r < rows; ++r) {
      q_.push_back(queries_.data() + int64_t{r} * dim);
      first_.push_back(0);
      last_.push_back(prefill ? context - rows + r : context - 1);
    }
    for (auto* state : {&maximum_, &sum_, &into_maximum_, &into_sum_}) state->resize(rows);
    values_.resize(queries_.size());
    into_values_.resize(queries_.size());
    scratch_.resize(AttendScratch(dim, dim));
  }

  void Attend(const CpuKernels& kernels) {
    into_maximum_.assign(rows_, -INFINITY);
    into_sum_.assign(rows_, 0.0f);
    into_values_.assign(into_values_.size(), 0.0f);
    for (int32_t base = 0; base < context_; base += kKvSuperTile) {
      kernels.attend(SuperTile(base));
      for (int32_t r = 0; r < rows_; ++r) {
        const int64_t at = int64_t{r} * dim_;
        kernels.merge({dim_, maximum_[r], sum_[r], &values_[at], &into_maximum_[r], &into_sum_[r],
                       &into_values_[at]});
      }
    }
  }

 private:
  AttendArgs SuperTile(int32_t base) {
    AttendArgs args;
    for (int32_t u = 0; u < kKvSuperTile / kKvUnit && base + u * kKvUnit < context_; ++u) {
      const int64_t at = int64_t{base + u * kKvUnit} * dim_;
      args.k[u] = reinterpret_cast<const uint8_t*>(&k_[at]);
      args.v[u] = reinterpret_cast<const uint8_t*>(&v_[at]);
    }
    args.base = base;
    args.k_dim = args.v_dim = dim_;
    args.rows = rows_;
    args.q = q_.data();
    args.first = first_.data();
    args.last = last_.data();
    args.maximum = maximum_.data();
    args.sum = sum_.data();
    args.values = values_.data();
    args.scratch = scratch_.data();
    return args;
  }

  const int32_t context_, dim_, rows_;
  std::vector<uint16_t> k_, v_;  // units of [dim][16] and [16][dim]
  std::vector<float> queries_;   // [rows][dim]
  std::vector<const float*> q_;
  std::vector<int32_t> first_, last_;
  std::vector<float> maximum_, sum_, values_, into_maximum_, into_sum_, into_values_, scratch_;
};

void Run(benchmark::State& state, bool prefill) {
  const auto context = static_cast<int32_t>(state.range(0));
  const auto dim = static_cast<int32_t>(state.range(1));
  const auto rows = static_cast<int32_t>(state.range(2));
  const CpuKernels& kernels = **SelectKernels("auto");
  Head head(context, dim, rows, prefill);
  for (auto _ : state) {
    head.Attend(kernels);
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  const double pairs = prefill ? rows * (context - (rows - 1) / 2.0) : double{1} * rows * context;
  state.counters["GB/s"] =
      Counter(4e-9 * context * dim, Counter::kIsIterationInvariantRate);  // K and V, 2 bytes each
  state.counters["GFLOP/s"] = Counter(4e-9 * pairs * dim, Counter::kIsIterationInvariantRate);
}

void BM_Decode(benchmark::State& state) { Run(state, /*prefill=*/false); }
void BM_Prefill(benchmark::State& state) { Run(state, /*prefill=*/true); }

BENCHMARK(BM_Decode)
    ->ArgNames({"context", "dim", "heads"})
    ->ArgsProduct({{512, 4096, 32768}, {64, 128}, {1, 3, 8}})
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_Prefill)
    ->ArgNames({"context", "dim", "rows"})
    ->ArgsProduct({{512, 4096}, {64, 128}, {96}})
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace kvasir::ops
