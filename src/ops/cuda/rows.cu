// Ops of single rows. What they sum, they sum in one order.
#include <cmath>

#include "ops/cuda/common.cuh"
#include "ops/cuda/launch.h"

namespace kvasir::ops {
namespace {

constexpr int kThreads = 256;

// The sum over a block, the same for each of its threads.
__device__ float BlockSum(float x) {
  __shared__ float sums[kThreads / kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  float total = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / kWarp; ++w) total += sums[w];
  __syncthreads();
  return total;
}

__global__ void EmbedKernel(DeviceBatch batch, const uint16_t* table, float scale,
                            DeviceMatrix out) {
  const int row = blockIdx.x;
  const int token = max(batch.tokens[row], 0);
  const __nv_bfloat16* from =
      reinterpret_cast<const __nv_bfloat16*>(table) + int64_t{token} * out.width;
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) {
    Store(out, row, i, __bfloat162float(from[i]) * scale);
  }
}

// A block a row and head. `width` is a multiple of eight.
__global__ void RmsNormKernel(DeviceMatrix x, const float* weight, float eps, int32_t width,
                              DeviceMatrix out) {
  const int64_t row = blockIdx.x;
  const int64_t first = int64_t{blockIdx.y} * width;
  float squares = 0;
  for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
    const Eight v = LoadEight(x, row, first + i);
#pragma unroll
    for (float value : v.x) squares = fmaf(value, value, squares);
  }
  const float scale = 1.0f / sqrtf(BlockSum(squares) / static_cast<float>(width) + eps);
  for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
    Eight v = LoadEight(x, row, first + i);
#pragma unroll
    for (int j = 0; j < 8; ++j) v.x[j] = v.x[j] * scale * weight[i + j];
    StoreEight(out, row, first + i, v);
  }
}

// Rotates columns [i, i + 8) and [i + width / 2, ...) of the head that begins at column `from`.
__device__ void Rotate(const DeviceRope& args, const DeviceMatrix& x, int64_t row, int64_t position,
                       int64_t from, int i, float scale, const DeviceMatrix& out, int64_t out_row,
                       int64_t to) {
  const int half = args.width / 2;
  const DeviceMatrix cosines{
      reinterpret_cast<uint8_t*>(const_cast<float*>(args.cosines + position * half)), false, 0,
      half};
  const DeviceMatrix sines{
      reinterpret_cast<uint8_t*>(const_cast<float*>(args.sines + position * half)), false, 0, half};
  const Eight a = LoadEight(x, row, from + i), b = LoadEight(x, row, from + i + half);
  const Eight c = LoadEight(cosines, 0, i), s = LoadEight(sines, 0, i);
  Eight low, high;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    low.x[j] = (a.x[j] * c.x[j] - b.x[j] * s.x[j]) * scale;
    high.x[j] = (a.x[j] * s.x[j] + b.x[j] * c.x[j]) * scale;
  }
  StoreEight(out, out_row, to + i, low);
  StoreEight(out, out_row, to + i + half, high);
}

// A block a row; the heads of q, then those of k, then v. The rotated width is a multiple of 16.
__global__ void RopeKvWriteKernel(DeviceBatch batch, DeviceRope args, DeviceKv kv) {
  const int64_t row = blockIdx.x;
  const int64_t position = batch.positions[row];
  if (position < 0) return;
  const int half = args.width / 2, dim = kv.dim;
  const int per_head = (dim - half) / 8;  // eight pairs, or eight single columns
  const int q_heads = args.q.width / dim;
  const int block =
      batch.tables[batch.table_begins[batch.sequences[row]] + position / kv.block_size];
  uint8_t* slot =
      kv.blocks + block * kv.block_bytes + kv.layer_offset + position % kv.block_size * dim * 2;
  for (int i = threadIdx.x; i < (q_heads + kv.kv_heads) * per_head; i += blockDim.x) {
    const int head = i / per_head, column = i % per_head * 8;
    const bool is_query = head < q_heads;
    const int kv_head = is_query ? 0 : head - q_heads;
    const DeviceMatrix& x = is_query ? args.q : args.k;
    const int64_t from = int64_t{is_query ? head : kv_head} * dim;
    const DeviceMatrix k{slot + kv_head * kv.head_bytes, true, dim, dim};
    const DeviceMatrix& out = is_query ? args.out : k;
    const int64_t out_row = is_query ? row : 0, to = is_query ? from : 0;
    const float scale = is_query ? args.scale : 1.0f;
    if (column < half) {
      Rotate(args, x, row, position, from, column, scale, out, out_row, to);
    } else {
      Eight v = LoadEight(x, row, from + column + half);
#pragma unroll
      for (float& value : v.x) value *= scale;
      StoreEight(out, out_row, to + column + half, v);
    }
  }
  for (int i = threadIdx.x * 8; i < kv.kv_heads * dim; i += blockDim.x * 8) {
    const DeviceMatrix v{slot + i / dim * kv.head_bytes + kv.k_bytes, true, dim, dim};
    StoreEight(v, 0, i % dim, LoadEight(args.v, row, i));
  }
}

__global__ void GatedKernel(DeviceMatrix gate, DeviceMatrix up, DeviceMatrix out) {
  const int64_t row = blockIdx.x;
  const int i = (blockIdx.y * blockDim.x + threadIdx.x) * 8;
  if (i >= out.width) return;
  Eight g = LoadEight(gate, row, i);
  const Eight u = LoadEight(up, row, i);
#pragma unroll
  for (int j = 0; j < 8; ++j) g.x[j] = g.x[j] / (1.0f + expf(-g.x[j])) * u.x[j];
  StoreEight(out, row, i, g);
}

__global__ void ConvertKernel(DeviceMatrix x, DeviceMatrix out) {
  const int64_t row = blockIdx.x;
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) Store(out, row, i, Load(x, row, i));
}

__global__ void AddBiasKernel(const float* bias, DeviceMatrix out) {
  const int64_t row = blockIdx.x;
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) {
    Store(out, row, i, Load(out, row, i) + bias[i]);
  }
}

__global__ void SelectRowsKernel(const int32_t* which, DeviceMatrix x, DeviceMatrix out) {
  const int64_t row = blockIdx.x;
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) {
    Store(out, row, i, Load(x, which[row], i));
  }
}

}  // namespace

cudaError_t FindKernels() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, EmbedKernel);
}

void LaunchEmbed(cudaStream_t stream, const DeviceBatch& batch, int64_t rows, const uint16_t* table,
                 float scale, const DeviceMatrix& out) {
  EmbedKernel<<<rows, kThreads, 0, stream>>>(batch, table, scale, out);
}

void LaunchRmsNorm(cudaStream_t stream, int64_t rows, const DeviceMatrix& x, const float* weight,
                   float eps, int32_t head_width, const DeviceMatrix& out) {
  const int32_t width = head_width > 0 ? head_width : x.width;
  const dim3 grid(rows, x.width / width);
  const int threads = width <= 128 ? kWarp : kThreads;
  RmsNormKernel<<<grid, threads, 0, stream>>>(x, weight, eps, width, out);
}

void LaunchRopeKvWrite(cudaStream_t stream, const DeviceBatch& batch, const DeviceRope& args,
                       const DeviceKv& kv) {
  RopeKvWriteKernel<<<args.rows, kThreads, 0, stream>>>(batch, args, kv);
}

void LaunchGated(cudaStream_t stream, int64_t rows, const DeviceMatrix& gate,
                 const DeviceMatrix& up, const DeviceMatrix& out) {
  const dim3 grid(rows, (out.width / 8 + kThreads - 1) / kThreads);
  GatedKernel<<<grid, kThreads, 0, stream>>>(gate, up, out);
}

void LaunchConvert(cudaStream_t stream, int64_t rows, const DeviceMatrix& x,
                   const DeviceMatrix& out) {
  ConvertKernel<<<rows, kThreads, 0, stream>>>(x, out);
}

void LaunchAddBias(cudaStream_t stream, int64_t rows, const float* bias, const DeviceMatrix& out) {
  AddBiasKernel<<<rows, kThreads, 0, stream>>>(bias, out);
}

void LaunchSelectRows(cudaStream_t stream, int64_t rows, const int32_t* which,
                      const DeviceMatrix& x, const DeviceMatrix& out) {
  SelectRowsKernel<<<rows, kThreads, 0, stream>>>(which, x, out);
}

}  // namespace kvasir::ops
