// The next token of a row of logits, the very one that sample::Sampler draws: weights in 44-bit
// fixed point, whose sums do not depend on their order. Each float operation rounds as it does
// there. Ranks and shares (sample/truncation.h) are found without sorting, by a radix search over
// sums of weights.
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

// What the threads of a block share while they look for a token.
struct Scratch {
  static constexpr int kBins = 2 * kThreads;
  uint32_t low[kBins], high[kBins];  // halves of sums
  uint64_t sums[kWarps];
  uint64_t left;
  int32_t found;
};

__device__ uint64_t SumOfLanesUpTo(uint64_t x, int lane) {
  for (int step = 1; step < kWarp; step *= 2) {
    const uint64_t before = __shfl_up_sync(~0u, x, step);
    if (lane >= step) x += before;
  }
  return x;
}

struct Sums {
  uint64_t up_to_warp;  // of all warps before the thread's own
  uint64_t up_to;       // of all threads up to this one
  uint64_t total;
};

__device__ Sums SumUp(uint64_t x, Scratch& scratch) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  x = SumOfLanesUpTo(x, lane);
  __syncthreads();
  if (lane == kWarp - 1) scratch.sums[warp] = x;
  __syncthreads();
  Sums out{};
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) out.up_to_warp = out.total;
    out.total += scratch.sums[w];
  }
  out.up_to = out.up_to_warp + x;
  return out;
}

// The first token up to which the amounts, in the order of ids, sum up to more than `left(total)`,
// which is less than their total. Each warp has a range of ids of its own; the one in which the sum
// is reached looks for the token. The same for all threads.
template <class Amount, class Left>
__device__ int32_t Locate(int32_t vocab, Scratch& scratch, Amount amount, Left left_of) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int32_t share = (vocab + kWarps - 1) / kWarps;
  const int32_t begin = warp * share, end = min(begin + share, vocab);
  uint64_t sum = 0;
#pragma unroll 8
  for (int32_t i = begin + lane; i < end; i += kWarp) sum += amount(i);
  const Sums sums = SumUp(sum, scratch);
  uint64_t left = left_of(sums.total);
  if (sums.up_to_warp <= left && left < sums.up_to_warp + scratch.sums[warp]) {
    left -= sums.up_to_warp;
    for (int32_t first = begin;; first += kWarp) {
      const uint64_t up_to = SumOfLanesUpTo(first + lane < end ? amount(first + lane) : 0, lane);
      const uint32_t beyond = __ballot_sync(~0u, left < up_to);
      if (beyond != 0) {
        if (lane == 0) scratch.found = first + __ffs(beyond) - 1;
        break;
      }
      left -= __shfl_sync(~0u, up_to, kWarp - 1);
    }
  }
  __syncthreads();
  return scratch.found;
}

// Ordered as the logits are, -0 as 0.
__device__ uint32_t Key(float logit) {
  const uint32_t bits = logit == 0.0f ? 0 : __float_as_uint(logit);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The last token of a prefix of all tokens in the order of sample/truncation.h.
struct Last {
  uint32_t key = 0;
  int32_t id = kNoToken;

  __device__ bool Keeps(float logit, int32_t token) const {
    const uint32_t own = Key(logit);
    return own > key || (own == key && token <= id);
  }
};

__device__ void AddToBin(Scratch& scratch, uint32_t bin, uint64_t amount) {
  const auto low = static_cast<uint32_t>(amount);
  const uint32_t before = atomicAdd(&scratch.low[bin], low);
  const uint32_t high = static_cast<uint32_t>(amount >> 32) + (before + low < low ? 1 : 0);
  if (high != 0) atomicAdd(&scratch.high[bin], high);
}

__device__ uint64_t Bin(const Scratch& scratch, int bin) {
  return static_cast<uint64_t>(scratch.high[bin]) << 32 | scratch.low[bin];
}

// The shortest prefix whose amounts sum up to `target` > 0; all tokens, where they sum up to less.
// `amount(i)` is the same for equal logits, but may be 0. A digit of the last token's key is found
// after the other, by sums of the amounts of all tokens with the digits before it.
template <class Amount>
__device__ Last Reach(const float* logits, int32_t vocab, Scratch& scratch, uint64_t target,
                      Amount amount) {
  Last last;
  int unknown = 32;  // bits of the key
  for (const int bits : {11, 11, 10}) {
    const int shift = unknown - bits;
    __syncthreads();
    for (int b = threadIdx.x; b < Scratch::kBins; b += kThreads) {
      scratch.low[b] = scratch.high[b] = 0;
    }
    if (threadIdx.x == 0) scratch.found = -1;
    __syncthreads();
#pragma unroll 4
    for (int32_t i = threadIdx.x; i < vocab; i += kThreads) {
      const uint32_t key = Key(logits[i]);
      if (static_cast<uint64_t>(key ^ last.key) >> unknown != 0) continue;
      const uint64_t own = amount(i);
      if (own != 0) AddToBin(scratch, key >> shift & ((1u << bits) - 1), own);
    }
    __syncthreads();
    // Two bins a thread, the largest digit first.
    const int bin = Scratch::kBins - 1 - 2 * static_cast<int>(threadIdx.x);
    const uint64_t first = Bin(scratch, bin), both = first + Bin(scratch, bin - 1);
    const uint64_t before = SumUp(both, scratch).up_to - both;
    if (before < target && target <= before + both) {
      const bool in_first = target <= before + first;
      scratch.found = in_first ? bin : bin - 1;
      scratch.left = target - before - (in_first ? 0 : first);
    }
    __syncthreads();
    if (scratch.found < 0) return {};
    target = scratch.left;
    last.key |= static_cast<uint32_t>(scratch.found) << shift;
    unknown = shift;
  }
  last.id = Locate(
      vocab, scratch, [&](int32_t i) { return Key(logits[i]) == last.key ? amount(i) : 0; },
      [&](uint64_t) { return target - 1; });
  return last;
}

// What sample::Truncation keeps is what the prefix has of tokens with a weight.
template <class WeightOf>
__device__ Last Truncate(const float* logits, int32_t vocab, Scratch& scratch,
                         const DeviceDraw& draw, WeightOf weight) {
  Last last;
  if (draw.top_k > 0) {
    last = Reach(logits, vocab, scratch, draw.top_k,
                 [&](int32_t i) -> uint64_t { return weight(i) != 0; });
  }
  if (draw.top_p >= 1) return last;
  uint64_t own = 0;
#pragma unroll 4
  for (int32_t i = threadIdx.x; i < vocab; i += kThreads) {
    if (last.Keeps(logits[i], i)) own += weight(i);
  }
  const auto target =
      static_cast<double>(draw.top_p) * static_cast<double>(SumUp(own, scratch).total);
  return Reach(logits, vocab, scratch, max(uint64_t{1}, static_cast<uint64_t>(target)), weight);
}

__global__ void __launch_bounds__(kThreads)
    DrawKernel(DeviceMatrix m, const DeviceDraw* draws, int32_t* ids) {
  __shared__ Scratch scratch;
  const float* logits = reinterpret_cast<const float*>(m.data) + blockIdx.x * m.stride;
  const DeviceDraw draw = draws[blockIdx.x];
  const Best best = FindBest(logits, m.width);
  if (best.id < 0 || draw.temperature == 0.0f) {
    if (threadIdx.x == 0) ids[blockIdx.x] = best.id;
    return;
  }
  const auto weight = [&](int32_t i) {
    return Weight((logits[i] - best.value) / draw.temperature, draw.min_weight);
  };
  const Last last = Truncate(logits, m.width, scratch, draw, weight);
  const int32_t id = Locate(
      m.width, scratch,
      [&](int32_t i) { return last.Keeps(logits[i], i) ? weight(i) : uint64_t{0}; },
      [&](uint64_t total) { return __umul64hi(draw.noise, total); });
  if (threadIdx.x == 0) ids[blockIdx.x] = id;
}

}  // namespace

void LaunchDraw(cudaStream_t stream, int64_t rows, const DeviceMatrix& logits,
                const DeviceDraw* draws, int32_t* ids) {
  DrawKernel<<<rows, kThreads, 0, stream>>>(logits, draws, ids);
}

}  // namespace kvasir::ops
