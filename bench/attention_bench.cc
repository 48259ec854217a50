// Attention of one KV head over a context, by the type of K and V. A decode is one position of the
// query heads that share it: GB/s of K and V. A prefill is many positions at the context's end:
// GFLOP/s.
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <vector>

#include "ops/cpu/dispatch.h"

namespace kvasir::ops {
namespace {

// K, V and the queries of one head, and the running states of its rows.
class Head {
 public:
  Head(const CpuKernels& kernels, KvType type, int32_t context, int32_t dim, int32_t rows,
       bool prefill)
      : kernels_(kernels), type_(type), context_(context), dim_(dim), rows_(rows) {
    for (auto* stored : {&k_, &v_}) stored->resize(int64_t{context} * row_bytes());
    for (auto* scales : {&k_scales_, &v_scales_}) scales->resize(context);
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    std::vector<float> row(dim);
    for (int32_t t = 0; t < context; ++t) {
      for (float& x : row) x = normal(random);
      const int64_t in_unit = t % kKvUnit * Info(type).element_bytes;
      k_scales_[t] = kernels.round_kv(type, row.data(), dim, kKvUnit,
                                      k_.data() + t / kKvUnit * kKvUnit * row_bytes() + in_unit);
      v_scales_[t] = kernels.round_kv(type, row.data(), dim, 1, v_.data() + t * row_bytes());
    }
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

  int64_t row_bytes() const { return int64_t{dim_} * Info(type_).element_bytes; }
  // Of K and V with their scales.
  int64_t bytes() const { return 2 * context_ * (row_bytes() + Info(type_).scale_bytes); }

  void Attend() {
    into_maximum_.assign(rows_, -INFINITY);
    into_sum_.assign(rows_, 0.0f);
    into_values_.assign(into_values_.size(), 0.0f);
    for (int32_t base = 0; base < context_; base += kKvSuperTile) {
      kernels_.attend(SuperTile(base));
      for (int32_t r = 0; r < rows_; ++r) {
        const int64_t at = int64_t{r} * dim_;
        kernels_.merge({dim_, maximum_[r], sum_[r], &values_[at], &into_maximum_[r], &into_sum_[r],
                        &into_values_[at]});
      }
    }
  }

 private:
  AttendArgs SuperTile(int32_t base) {
    AttendArgs args;
    for (int32_t u = 0; u < kKvSuperUnits && base + u * kKvUnit < context_; ++u) {
      const int64_t position = base + u * kKvUnit;
      args.k[u] = k_.data() + position * row_bytes();
      args.v[u] = v_.data() + position * row_bytes();
      args.k_scale[u] = &k_scales_[position];
      args.v_scale[u] = &v_scales_[position];
    }
    args.type = type_;
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

  const CpuKernels& kernels_;
  const KvType type_;
  const int32_t context_, dim_, rows_;
  std::vector<uint8_t> k_, v_;              // units of [dim][16] and [16][dim]
  std::vector<float> k_scales_, v_scales_;  // [context]
  std::vector<float> queries_;              // [rows][dim]
  std::vector<const float*> q_;
  std::vector<int32_t> first_, last_;
  std::vector<float> maximum_, sum_, values_, into_maximum_, into_sum_, into_values_, scratch_;
};

void Run(benchmark::State& state, KvType type, bool prefill) {
  const auto context = static_cast<int32_t>(state.range(0));
  const auto dim = static_cast<int32_t>(state.range(1));
  const auto rows = static_cast<int32_t>(state.range(2));
  Head head(**SelectKernels("auto"), type, context, dim, rows, prefill);
  for (auto _ : state) {
    head.Attend();
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  const double pairs = prefill ? rows * (context - (rows - 1) / 2.0) : double{1} * rows * context;
  state.counters["GB/s"] = Counter(1e-9 * head.bytes(), Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = Counter(4e-9 * pairs * dim, Counter::kIsIterationInvariantRate);
}

void BM_Decode(benchmark::State& state, KvType type) { Run(state, type, /*prefill=*/false); }
void BM_Prefill(benchmark::State& state, KvType type) { Run(state, type, /*prefill=*/true); }

void Decodes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"context", "dim", "heads"})
      ->ArgsProduct({{512, 4096, 32768}, {64, 128}, {1, 3, 8}})
      ->Unit(benchmark::kMicrosecond);
}
void Prefills(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"context", "dim", "rows"})
      ->ArgsProduct({{512, 4096}, {64, 128}, {96}})
      ->Unit(benchmark::kMicrosecond);
}

BENCHMARK_CAPTURE(BM_Decode, bf16, KvType::kBf16)->Apply(Decodes);
BENCHMARK_CAPTURE(BM_Decode, int8, KvType::kInt8)->Apply(Decodes);
BENCHMARK_CAPTURE(BM_Decode, fp8, KvType::kFp8)->Apply(Decodes);
BENCHMARK_CAPTURE(BM_Prefill, bf16, KvType::kBf16)->Apply(Prefills);
BENCHMARK_CAPTURE(BM_Prefill, int8, KvType::kInt8)->Apply(Prefills);
BENCHMARK_CAPTURE(BM_Prefill, fp8, KvType::kFp8)->Apply(Prefills);

}  // namespace
}  // namespace kvasir::ops
