// Matrix products of our own: tiles on tensor cores, where every sum is made in one order whatever
// the number of rows, and a streaming product for a few rows. (The fast mode leaves the rest to
// cuBLASLt, cuda_kernels.cc.)
#include "ops/cuda/common.cuh"
#include "ops/cuda/launch.h"

namespace kvasir::ops {
namespace {

// ---- Tiles ----

constexpr int kTileColumns = 64;  // of the result
constexpr int kTileDepth = 64;    // of the sum, at a time
constexpr int kStages = 3;
constexpr int kThreads = 128;

// `rows` rows of a BF16 matrix, [all_rows][depth], from (row, k) on, to shared memory; zeros
// beyond.
__device__ void LoadTile(uint32_t to, const uint8_t* data, int64_t stride, int64_t row,
                         int64_t all_rows, int64_t k, int64_t depth, int rows) {
  using Shared = SharedRows<kTileDepth>;
  for (int i = threadIdx.x; i < rows * Shared::kPieces; i += kThreads) {
    const int r = i / Shared::kPieces, piece = i % Shared::kPieces;
    const int64_t column = k + piece * 8;
    const bool valid = row + r < all_rows && column < depth;
    const uint8_t* from = data + (valid ? ((row + r) * stride + column) * 2 : 0);
    CopyAsync(Shared::Address(to, r, piece), from, valid);
  }
}

// kRows x 64 outputs of four warps: a warp has 16 rows and, of few rows, a part of the columns. An
// output is summed over k in steps of 16 of the tensor core, whatever kRows is.
template <int kRows>
__global__ void __launch_bounds__(kThreads) TiledKernel(DeviceMatmul args) {
  using Shared = SharedRows<kTileDepth>;
  constexpr int kRowWarps = kRows / 16;
  constexpr int kWarpColumns = kTileColumns * kRowWarps / 4;
  constexpr int kPieces = kWarpColumns / 8;  // of 8 columns
  constexpr int kStageBytes = (kRows + kTileColumns) * kTileDepth * 2;
  extern __shared__ __align__(128) uint8_t shared[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int warp_row = warp % kRowWarps * 16, warp_column = warp / kRowWarps * kWarpColumns;
  const int64_t row = int64_t{blockIdx.y} * kRows, column = int64_t{blockIdx.x} * kTileColumns;
  const int64_t depth = args.x.width;
  const uint32_t base = SharedAddress(shared);
  const auto load = [&](int64_t t) {
    const uint32_t to = base + t % kStages * kStageBytes;
    if (t * kTileDepth < depth) {
      LoadTile(to, args.x.data, args.x.stride, row, args.rows, t * kTileDepth, depth, kRows);
      LoadTile(to + kRows * kTileDepth * 2, reinterpret_cast<const uint8_t*>(args.weights), depth,
               column, args.out.width, t * kTileDepth, depth, kTileColumns);
    }
    CommitCopies();
  };
  float sums[kPieces][4] = {};
  const int64_t tiles = (depth + kTileDepth - 1) / kTileDepth;
  for (int t = 0; t < kStages - 1; ++t) load(t);
  for (int64_t t = 0; t < tiles; ++t) {
    WaitCopies<kStages - 2>();
    __syncthreads();
    load(t + kStages - 1);
    const uint32_t x = base + t % kStages * kStageBytes, w = x + kRows * kTileDepth * 2;
#pragma unroll
    for (int step = 0; step < kTileDepth / 16; ++step) {
      uint32_t a[4];
      LoadMatrices(a, Shared::Address(x, warp_row + lane % 16, 2 * step + lane / 16));
#pragma unroll
      for (int n = 0; n < kPieces; n += 2) {
        uint32_t b[4];
        LoadMatrices(b, Shared::Address(w, warp_column + (n + lane / 16) * 8 + lane % 8,
                                        2 * step + lane / 8 % 2));
        MultiplyAdd(sums[n], a, b[0], b[1]);
        MultiplyAdd(sums[n + 1], a, b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < kPieces; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t r = row + warp_row + lane / 4 + i / 2 * 8;
      const int64_t c = column + warp_column + n * 8 + lane % 4 * 2 + i % 2;
      if (r >= args.rows || c >= args.out.width) continue;
      float value = sums[n][i];
      if (args.bias != nullptr) value += args.bias[c];
      if (args.accumulate) value += Load(args.out, r, c);
      Store(args.out, r, c, value);
    }
  }
}

template <int kRows>
void LaunchTiles(cudaStream_t stream, const DeviceMatmul& args) {
  constexpr int kShared = kStages * (kRows + kTileColumns) * kTileDepth * 2;
  cudaFuncSetAttribute(TiledKernel<kRows>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  const dim3 grid((args.out.width + kTileColumns - 1) / kTileColumns,
                  (args.rows + kRows - 1) / kRows);
  TiledKernel<kRows><<<grid, kThreads, kShared, stream>>>(args);
}

// ---- A few rows ----

constexpr int kVectorWarps = 4;
constexpr int kUnroll = 4;

__device__ inline uint4 LoadStreaming(const uint4* p) {
  uint4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "l"(p));
  return r;
}

__device__ inline float Dot(const uint4& a, const uint4& b, float sum) {
  const uint32_t as[4] = {a.x, a.y, a.z, a.w}, bs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = fmaf(__uint_as_float(as[i] << 16), __uint_as_float(bs[i] << 16), sum);
    sum = fmaf(__uint_as_float(as[i] & 0xffff0000u), __uint_as_float(bs[i] & 0xffff0000u), sum);
  }
  return sum;
}

// A warp makes one column of all rows.
template <int kRows>
__global__ void __launch_bounds__(kVectorWarps* kWarp) VectorKernel(DeviceMatmul args) {
  const int lane = threadIdx.x % kWarp;
  const int64_t column = int64_t{blockIdx.x} * kVectorWarps + threadIdx.x / kWarp;
  if (column >= args.out.width) return;
  const int pieces = args.x.width / 8;
  const uint4* w = reinterpret_cast<const uint4*>(args.weights) + column * pieces;
  const auto x = [&](int row, int piece) {
    return reinterpret_cast<const uint4*>(args.x.data + row * args.x.stride * 2)[piece];
  };
  float sums[kRows] = {};
  int piece = lane;
  for (; piece + (kUnroll - 1) * kWarp < pieces; piece += kUnroll * kWarp) {
    uint4 weights[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) weights[u] = LoadStreaming(w + piece + u * kWarp);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] = Dot(weights[u], x(r, piece + u * kWarp), sums[r]);
    }
  }
  for (; piece < pieces; piece += kWarp) {
    const uint4 weights = LoadStreaming(w + piece);
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r] = Dot(weights, x(r, piece), sums[r]);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float value = sums[r];
    for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    if (lane != 0) continue;
    if (args.bias != nullptr) value += args.bias[column];
    if (args.accumulate) value += Load(args.out, r, column);
    Store(args.out, r, column, value);
  }
}

template <int kRows>
void LaunchVector(cudaStream_t stream, const DeviceMatmul& args) {
  const int64_t blocks = (args.out.width + kVectorWarps - 1) / kVectorWarps;
  VectorKernel<kRows><<<blocks, kVectorWarps * kWarp, 0, stream>>>(args);
}

}  // namespace

void LaunchTiledMatmul(cudaStream_t stream, const DeviceMatmul& args) {
  if (args.rows <= 16) return LaunchTiles<16>(stream, args);
  LaunchTiles<64>(stream, args);
}

void LaunchVectorMatmul(cudaStream_t stream, const DeviceMatmul& args) {
  switch (args.rows) {
    case 1:
      return LaunchVector<1>(stream, args);
    case 2:
      return LaunchVector<2>(stream, args);
    case 3:
      return LaunchVector<3>(stream, args);
    default:
      return LaunchVector<4>(stream, args);
  }
}

}  // namespace kvasir::ops
