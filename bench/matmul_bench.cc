// Matrix products by weight format: 1 row of activations is a decode, which streams the weights
// from memory (GB/s of packed weights); 512 rows are a prefill, which computes (GFLOP/s).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <map>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "ops/cpu/dispatch.h"
#include "ops/packing.h"
#include "ops/testing/random_matrix.h"
#include "ops/testing/random_scaled.h"

namespace kvasir::ops {
namespace {

constexpr int64_t kCols = 4096;
constexpr int64_t kStreamedRows = 16384;  // of weights: more than caches hold
constexpr int64_t kComputedRows = 2048;
constexpr int64_t kPanelsPerTile = 16;

const CpuKernels& Kernels() {
  static const CpuKernels& kernels = **SelectKernels("auto");
  return kernels;
}

ThreadPool& Pool(int threads) {
  static std::map<int, ThreadPool> pools;
  return pools.try_emplace(threads, threads).first->second;
}

struct Weights {
  DType stored;
  PanelLayout layout;
};

PackedMatrix Made(const Weights& weights, int64_t rows) {
  std::mt19937 random(7);
  const auto pack = [&](const MatrixSource& source) {
    StatusOr<PackedMatrix> made = Pack({&source, 1}, weights.layout, Pool(1));
    KVASIR_CHECK(made.ok(), "the matrix fits into memory");
    return *std::move(made);
  };
  if (IsSelfContained(weights.stored)) {
    const std::vector<uint8_t> stored = RandomMatrix(weights.stored, rows, kCols, random);
    return pack({weights.stored, rows, kCols, stored.data()});
  }
  const PanelFormat format = weights.layout.format;
  ScaledShape shape{.dtype = weights.stored, .group = weights.layout.group};
  shape.has_zero = format == PanelFormat::kInt4Zero || format == PanelFormat::kInt8Zero;
  if (shape.group == 0) shape.group = kCols;  // 8-bit floats with a scale for each row
  return pack(RandomScaled(shape, rows, kCols, random).source());
}

// Only the last one is kept: together they would fill the memory of a small machine.
const PanelView& Packed(const Weights& weights, int64_t rows) {
  static std::pair<PanelLayout, int64_t> key{PanelFormat::kF32, 0};
  static PackedMatrix packed;
  if (key != std::pair(weights.layout, rows)) {
    packed = Made(weights, rows);
    key = {weights.layout, rows};
  }
  return packed.view;
}

// Rows of activations in each of the types that products take.
class Activations {
 public:
  explicit Activations(int64_t rows)
      : floats_(rows * kCols),
        bf16_(rows * kCols),
        memory_(QuantizedRows::Bytes(rows, kCols) + 64) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (float& x : floats_) x = normal(random);
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    quantized_ = QuantizedRows::At(memory_.data() + (64 - address % 64) % 64, rows, kCols);
    for (int64_t r = 0; r < rows; ++r) {
      Kernels().quantize(floats_.data() + r * kCols, r, quantized_);
      Kernels().round_bf16(floats_.data() + r * kCols, kCols, bf16_.data() + r * kCols);
    }
  }

  MatmulArgs Args(const PanelView& weights, std::vector<float>& out) const {
    MatmulArgs args;
    args.weights = weights;
    args.row_end = static_cast<int64_t>(floats_.size()) / kCols;
    args.quantized = quantized_;
    args.floats = floats_.data();
    args.bf16 = bf16_.data();
    out.resize(args.row_end * weights.rows);
    args.out = out.data();
    args.out_stride = weights.rows;
    return args;
  }

 private:
  std::vector<float> floats_;
  std::vector<uint16_t> bf16_;
  std::vector<uint8_t> memory_;
  QuantizedRows quantized_;
};

void BM_Matmul(benchmark::State& state, Weights weights) {
  const int64_t rows = state.range(0);
  ThreadPool& pool = Pool(static_cast<int>(state.range(1)));
  const PanelView& view = Packed(weights, rows > 16 ? kComputedRows : kStreamedRows);
  const Activations activations(rows);
  std::vector<float> out;
  const MatmulArgs all = activations.Args(view, out);
  const int64_t tiles = (view.panels + kPanelsPerTile - 1) / kPanelsPerTile;
  for (auto _ : state) {
    pool.ParallelFor(tiles, [&](int64_t tile, int) {
      MatmulArgs args = all;
      args.panel_begin = tile * kPanelsPerTile;
      args.panel_end = std::min(view.panels, args.panel_begin + kPanelsPerTile);
      Kernels().matmul(args);
    });
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(static_cast<double>(view.panels * view.panel_bytes) / 1e9,
                                   Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = Counter(2e-9 * static_cast<double>(rows * view.rows * kCols),
                                      Counter::kIsIterationInvariantRate);
}

void RegisterAll() {
  std::vector<Weights> all;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16, DType::kQ4_0, DType::kQ4_1,
                            DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ4_K, DType::kQ5_K,
                            DType::kQ6_K, DType::kIq4Nl, DType::kMxfp4, DType::kF8E4M3}) {
    all.push_back({dtype, PanelFormatOf(dtype)});
  }
  all.push_back({DType::kInt4, {PanelFormat::kInt4, 128}});
  all.push_back({DType::kInt4, {PanelFormat::kInt4Zero, 128}});
  all.push_back({DType::kInt8, {PanelFormat::kInt8, kCols}});
  if (Kernels().bf16_pairs) all.push_back({DType::kBf16, PanelFormat::kBf16Pairs});
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  for (const Weights& weights : all) {
    benchmark::internal::Benchmark* one =
        benchmark::RegisterBenchmark(Name(weights.layout.format), BM_Matmul, weights);
    one->ArgNames({"rows", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
    for (const int64_t rows : {1, 16, 512}) {
      one->Args({rows, 1});
      if (cores > 1) one->Args({rows, cores});
    }
  }
}

const bool kRegistered = (RegisterAll(), true);

}  // namespace
}  // namespace kvasir::ops
