// The next token of a row of logits, the very one that sample/weights.h draws: weights in 44-bit
// fixed point, whose sums do not depend on their order. Each float operation rounds as it does
// there.
#include <cfloat>
#include <cmath>

#include "ops/cuda/common.cuh"
#include "ops/cuda/launch.h"

namespace kvasir::ops {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
constexpr int32_t kNoToken = INT32_MAX;

struct Best {
  float value;
  int32_t id;  // -1: some value was not finite
};

__device__ Best Better(const Best& a, const Best& b) {
  if (a.id < 0 || b.id < 0) return {0.0f, -1};
  if (a.value != b.value) return a.value > b.value ? a : b;
  return a.id < b.id ? a : b;
}

// The same for all threads of the block.
__device__ Best FindBest(const float* logits, int32_t vocab) {
  __shared__ Best bests[kWarps];
  Best best{-INFINITY, kNoToken};
#pragma unroll 8
  for (int32_t i = threadIdx.x; i < vocab; i += kThreads) {
    best = Better(best, {logits[i], isfinite(logits[i]) ? i : -1});
  }
  for (int step = kWarp / 2; step > 0; step /= 2) {
    best =
        Better(best, {__shfl_xor_sync(~0u, best.value, step), __shfl_xor_sync(~0u, best.id, step)});
  }
  if (threadIdx.x % kWarp == 0) bests[threadIdx.x / kWarp] = best;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) best = Better(best, bests[w]);
  return best;
}

// exp(z) * 2^44 as an integer, for z <= 0: sample/weights.cc, step by step.
__device__ uint64_t Weight(float z, uint64_t min_weight) {
  constexpr float kLowest = -40.0f, kLog2e = 1.44269504f, kRound = 12582912.0f;
  constexpr float kLn2High = 0.693145752f, kLn2Low = 1.42860677e-6f;
  z = z < kLowest ? kLowest : z;
  const float shifted = z * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (z - n * kLn2High) - n * kLn2Low;
  float p = r * (1.0f / 720) + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t bias = 127 + 44 - __float_as_int(kRound);
  const float exact = p * __int_as_float((__float_as_int(shifted) + bias) << 23);
  const uint64_t weight = static_cast<uint64_t>(static_cast<int64_t>(exact));
  return weight < min_weight ? 0 : weight;
}

__device__ uint64_t WarpSum(uint64_t x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// Each warp has a range of ids of its own; the one in which the draw falls looks for the token.
__global__ void __launch_bounds__(kThreads)
    DrawKernel(DeviceMatrix m, const DeviceDraw* draws, int32_t* ids) {
  __shared__ uint64_t sums[kWarps];
  const float* logits = reinterpret_cast<const float*>(m.data) + blockIdx.x * m.stride;
  const DeviceDraw draw = draws[blockIdx.x];
  const Best best = FindBest(logits, m.width);
  if (best.id < 0 || draw.temperature == 0.0f) {
    if (threadIdx.x == 0) ids[blockIdx.x] = best.id;
    return;
  }
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int32_t share = (m.width + kWarps - 1) / kWarps;
  const int32_t begin = warp * share, end = min(begin + share, m.width);
  const auto weight = [&](int32_t i) {
    return i < end ? Weight((logits[i] - best.value) / draw.temperature, draw.min_weight) : 0;
  };
  uint64_t sum = 0;
#pragma unroll 8
  for (int32_t i = begin + lane; i < end; i += kWarp) sum += weight(i);
  sum = WarpSum(sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  uint64_t total = 0;
  for (int w = 0; w < kWarps; ++w) total += sums[w];
  uint64_t left = __umul64hi(draw.noise, total);
  for (int w = 0; w < warp; ++w) {
    if (left < sums[w]) return;  // another warp's
    left -= sums[w];
  }
  if (left >= sums[warp]) return;
  for (int32_t first = begin; first < end; first += kWarp) {
    const uint64_t own = weight(first + lane);
    uint64_t up_to = own;  // of this lane and those before it
    for (int step = 1; step < kWarp; step *= 2) {
      const uint64_t before = __shfl_up_sync(~0u, up_to, step);
      if (lane >= step) up_to += before;
    }
    const uint32_t beyond = __ballot_sync(~0u, left < up_to);
    if (beyond != 0) {
      if (lane == __ffs(beyond) - 1) ids[blockIdx.x] = first + lane;
      return;
    }
    left -= __shfl_sync(~0u, up_to, kWarp - 1);
  }
}

}  // namespace

void LaunchDraw(cudaStream_t stream, int64_t rows, const DeviceMatrix& logits,
                const DeviceDraw* draws, int32_t* ids) {
  DrawKernel<<<rows, kThreads, 0, stream>>>(logits, draws, ids);
}

}  // namespace kvasir::ops
