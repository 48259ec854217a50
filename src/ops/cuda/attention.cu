// Attention over paged KV on tensor cores, with the running softmax of Dao et al.,
// FlashAttention-2; for single rows the KV is split over blocks as in Flash-Decoding.
//
// A tile's queries are its rows times the query heads that share a KV head, so that both prompts
// and decodes read K and V once for all of them. KV is walked in tiles at absolute positions; what
// a query does not see changes no bit of its state.
#include <cmath>
#include <type_traits>

#include "ops/cuda/common.cuh"
#include "ops/cuda/launch.h"

namespace kvasir::ops {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kMinusInfinity = -INFINITY;

// K or V, `rows` positions from `first` of a page table, on their way to shared memory, brought by
// `threads` threads of which this one is `thread`.
template <int kDim>
__device__ void LoadPositions(uint32_t to, const DeviceKv& kv, const int32_t* table, int kv_head,
                              bool values, int first, int rows, int end, int thread, int threads) {
  using Shared = SharedRows<kDim>;
  const int64_t offset = kv.layer_offset + kv_head * kv.head_bytes + (values ? kv.k_bytes : 0);
  for (int i = thread; i < rows * Shared::kPieces; i += threads) {
    const int row = i / Shared::kPieces, piece = i % Shared::kPieces;
    const int position = first + row;
    const bool valid = position < end;
    const int block = valid ? table[position / kv.block_size] : 0;
    const uint8_t* from = kv.blocks + block * kv.block_bytes + offset +
                          (int64_t{position % kv.block_size} * kDim + piece * 8) * 2;
    CopyAsync(Shared::Address(to, row, piece), from, valid);
  }
}

// The state of 16 queries of a warp. Lane l holds columns of the queries l / 4 and l / 4 + 8.
template <int kDim>
struct State {
  float values[kDim / 8][4];
  float maximum[2];
  float sum[2];  // of this lane's columns

  __device__ void Clear() {
    for (auto& v : values) v[0] = v[1] = v[2] = v[3] = 0.0f;
    maximum[0] = maximum[1] = kMinusInfinity;
    sum[0] = sum[1] = 0.0f;
  }
};

// Adds kPositions positions from `first` to the state of 16 queries. The queries lie in registers
// as `q`; a query sees positions up to its `last`.
template <int kDim, int kPositions>
__device__ void Attend(const uint32_t (&q)[kDim / 16][4], uint32_t k, uint32_t v, int first,
                       const int (&last)[2], State<kDim>& state) {
  using Shared = SharedRows<kDim>;
  const int lane = threadIdx.x % kWarp;
  float scores[kPositions / 8][4] = {};
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
#pragma unroll
    for (int n = 0; n < kPositions / 8; n += 2) {
      uint32_t b[4];
      LoadMatrices(b, Shared::Address(k, (n + lane / 16) * 8 + lane % 8, 2 * step + lane / 8 % 2));
      MultiplyAdd(scores[n], q[step], b[0], b[1]);
      MultiplyAdd(scores[n + 1], q[step], b[2], b[3]);
    }
  }
  float maximum[2] = {state.maximum[0], state.maximum[1]};
#pragma unroll
  for (int n = 0; n < kPositions / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int position = first + n * 8 + lane % 4 * 2 + i % 2;
      if (position > last[i / 2]) scores[n][i] = kMinusInfinity;
      maximum[i / 2] = fmaxf(maximum[i / 2], scores[n][i]);
    }
  }
  float base[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    maximum[half] = fmaxf(maximum[half], __shfl_xor_sync(~0u, maximum[half], 1));
    maximum[half] = fmaxf(maximum[half], __shfl_xor_sync(~0u, maximum[half], 2));
    // (A query that has seen nothing yet has no maximum to subtract.)
    const bool empty = maximum[half] == kMinusInfinity;
    base[half] = empty ? 0.0f : maximum[half] * kLog2E;
    // Exactly 1 where the maximum stays.
    const float factor = empty ? 1.0f : exp2f((state.maximum[half] - maximum[half]) * kLog2E);
    state.maximum[half] = maximum[half];
    state.sum[half] *= factor;
#pragma unroll
    for (auto& value : state.values) {
      value[2 * half] *= factor;
      value[2 * half + 1] *= factor;
    }
  }
#pragma unroll
  for (int n = 0; n < kPositions / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scores[n][i] = exp2f(fmaf(scores[n][i], kLog2E, -base[i / 2]));
      state.sum[i / 2] += scores[n][i];
    }
  }
#pragma unroll
  for (int step = 0; step < kPositions / 16; ++step) {
    const uint32_t p[4] = {Pack(scores[2 * step][0], scores[2 * step][1]),
                           Pack(scores[2 * step][2], scores[2 * step][3]),
                           Pack(scores[2 * step + 1][0], scores[2 * step + 1][1]),
                           Pack(scores[2 * step + 1][2], scores[2 * step + 1][3])};
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t b[4];
      LoadTransposed(b, Shared::Address(v, step * 16 + lane % 16, n + lane / 16));
      MultiplyAdd(state.values[n], p, b[0], b[1]);
      MultiplyAdd(state.values[n + 1], p, b[2], b[3]);
    }
  }
}

template <int kDim>
__device__ void SumLanes(State<kDim>& state) {
#pragma unroll
  for (float& sum : state.sum) {
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
  }
}

// The 16 queries from `first` of a tile as tensor-core operands; those beyond `queries` are zero.
template <int kDim>
__device__ void LoadQueries(uint32_t (&q)[kDim / 16][4], const DeviceMatrix& m, int row, int head,
                            int group, int first, int queries) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = first + lane / 4 + 8 * half;
    const bool valid = query < queries;
    const int64_t at = (row + query / group) * m.stride + (head * group + query % group) * kDim;
    const uint32_t* from = reinterpret_cast<const uint32_t*>(m.data + 2 * (valid ? at : 0));
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      q[step][half] = valid ? from[step * 8 + lane % 4] : 0;
      q[step][half + 2] = valid ? from[step * 8 + lane % 4 + 4] : 0;
    }
  }
}

constexpr int kTilePositions = 64;
constexpr int kTileWarps = kTileQueries / 16;

template <int kDim>
__global__ void __launch_bounds__(kTileWarps* kWarp)
    TileKernel(DeviceBatch batch, DeviceAttention args, DeviceKv kv, int first_tile) {
  extern __shared__ __align__(128) uint8_t shared[];
  constexpr int kTileBytes = kTilePositions * kDim * 2;
  const AttentionTile tile = args.tiles[first_tile + blockIdx.x];
  if (tile.rows == 0) return;
  const int kv_head = blockIdx.y, group = args.heads / kv.kv_heads;
  const int queries = tile.rows * group;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int end = batch.positions[tile.first_row + tile.rows - 1] + 1;
  if (end <= 0) return;
  const int32_t* table = batch.tables + batch.table_begins[batch.sequences[tile.first_row]];

  uint32_t q[kDim / 16][4];
  LoadQueries<kDim>(q, args.q, tile.first_row, kv_head, group, warp * 16, queries);
  int last[2];
  for (int half = 0; half < 2; ++half) {
    const int query = warp * 16 + lane / 4 + 8 * half;
    last[half] = query < queries ? batch.positions[tile.first_row + query / group] : -1;
  }
  const uint32_t base = SharedAddress(shared);
  const auto load = [&](int t) {
    const uint32_t to = base + t % 2 * 2 * kTileBytes;
    for (int values = 0; values < 2; ++values) {
      LoadPositions<kDim>(to + values * kTileBytes, kv, table, kv_head, values, t * kTilePositions,
                          kTilePositions, end, threadIdx.x, kTileWarps * kWarp);
    }
    CommitCopies();
  };
  State<kDim> state;
  state.Clear();
  const int tiles = (end + kTilePositions - 1) / kTilePositions;
  load(0);
  for (int t = 0; t < tiles; ++t) {
    if (t + 1 < tiles) {
      load(t + 1);
      WaitCopies<1>();
    } else {
      WaitCopies<0>();
    }
    __syncthreads();
    const uint32_t k = base + t % 2 * 2 * kTileBytes;
    if (warp * 16 < queries) {
      Attend<kDim, kTilePositions>(q, k, k + kTileBytes, t * kTilePositions, last, state);
    }
    __syncthreads();
  }
  SumLanes(state);
  for (int half = 0; half < 2; ++half) {
    const int query = warp * 16 + lane / 4 + 8 * half;
    if (query >= queries) continue;
    const int row = tile.first_row + query / group;
    const int column = (kv_head * group + query % group) * kDim + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      StorePair(args.out, row, column + n * 8, state.values[n][2 * half] / state.sum[half],
                state.values[n][2 * half + 1] / state.sum[half]);
    }
  }
}

constexpr int kSinglePositions = 16;  // that a warp takes at a time
constexpr int kSingleWarps = 4;

// Warps take turns at the positions of this block's part; their states are merged at the end.
template <int kDim>
__global__ void __launch_bounds__(kSingleWarps* kWarp)
    SingleRowKernel(DeviceBatch batch, DeviceAttention args, DeviceKv kv, int splits,
                    float* partials) {
  extern __shared__ __align__(128) uint8_t shared[];
  constexpr int kStageBytes = 2 * kSinglePositions * kDim * 2;
  const AttentionTile tile = args.tiles[blockIdx.x];
  if (tile.rows == 0) return;
  const int kv_head = blockIdx.y, split = blockIdx.z, group = args.heads / kv.kv_heads;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int position = batch.positions[tile.first_row];
  if (position < 0) return;
  const int32_t* table = batch.tables + batch.table_begins[batch.sequences[tile.first_row]];
  const int chunks = position / kSinglePositions + 1;
  const int share = (chunks + splits - 1) / splits;
  const int begin = split * share, end = min(chunks, begin + share);

  uint32_t q[kDim / 16][4];
  LoadQueries<kDim>(q, args.q, tile.first_row, kv_head, group, 0, group);
  const int last[2] = {lane / 4 < group ? position : -1, lane / 4 + 8 < group ? position : -1};
  const uint32_t base = SharedAddress(shared) + warp * 2 * kStageBytes;
  const auto load = [&](int chunk, int stage) {
    if (chunk < end) {
      for (int values = 0; values < 2; ++values) {
        LoadPositions<kDim>(base + stage * kStageBytes + values * kStageBytes / 2, kv, table,
                            kv_head, values, chunk * kSinglePositions, kSinglePositions,
                            position + 1, lane, kWarp);
      }
    }
    CommitCopies();
  };
  State<kDim> state;
  state.Clear();
  load(begin + warp, 0);
  for (int chunk = begin + warp, stage = 0; chunk < end; chunk += kSingleWarps, stage ^= 1) {
    load(chunk + kSingleWarps, stage ^ 1);
    WaitCopies<1>();
    __syncwarp();
    const uint32_t k = base + stage * kStageBytes;
    Attend<kDim, kSinglePositions>(q, k, k + kStageBytes / 2, chunk * kSinglePositions, last,
                                   state);
    __syncwarp();
  }
  WaitCopies<0>();
  SumLanes(state);
  __syncthreads();

  // [warp][query](values, maximum, sum) in what held K and V.
  constexpr int kWidth = kDim + 2;
  float* states = reinterpret_cast<float*>(shared);
  for (int half = 0; half < 2; ++half) {
    const int query = lane / 4 + 8 * half;
    if (query >= group) continue;
    float* to = states + (warp * kSingleRowHeads + query) * kWidth;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      to[n * 8 + lane % 4 * 2] = state.values[n][2 * half];
      to[n * 8 + lane % 4 * 2 + 1] = state.values[n][2 * half + 1];
    }
    if (lane % 4 == 0) {
      to[kDim] = state.maximum[half];
      to[kDim + 1] = state.sum[half];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < group * kDim; i += kSingleWarps * kWarp) {
    const int query = i / kDim, d = i % kDim;
    float maximum = kMinusInfinity, sum = 0, value = 0;
    for (int w = 0; w < kSingleWarps; ++w) {
      maximum = fmaxf(maximum, states[(w * kSingleRowHeads + query) * kWidth + kDim]);
    }
    for (int w = 0; w < kSingleWarps; ++w) {
      const float* from = states + (w * kSingleRowHeads + query) * kWidth;
      const float factor =
          from[kDim] == kMinusInfinity ? 0.0f : exp2f((from[kDim] - maximum) * kLog2E);
      sum = fmaf(from[kDim + 1], factor, sum);
      value = fmaf(from[d], factor, value);
    }
    const int head = kv_head * group + query;
    if (splits == 1) {
      Store(args.out, tile.first_row, head * kDim + d, value / sum);
      continue;
    }
    float* to = partials + ((int64_t{blockIdx.x} * args.heads + head) * splits + split) * kWidth;
    to[d] = value;
    if (d == 0) {
      to[kDim] = maximum;
      to[kDim + 1] = sum;
    }
  }
}

template <int kDim>
__global__ void MergeKernel(DeviceBatch batch, DeviceAttention args, int splits,
                            const float* partials) {
  constexpr int kWidth = kDim + 2;
  const AttentionTile tile = args.tiles[blockIdx.x];
  if (tile.rows == 0 || batch.positions[tile.first_row] < 0) return;
  const int head = blockIdx.y, d = threadIdx.x;
  const float* from = partials + (int64_t{blockIdx.x} * args.heads + head) * splits * kWidth;
  float maximum = kMinusInfinity, sum = 0, value = 0;
  // (Unrolled for loads that do not wait for each other.)
#pragma unroll 8
  for (int s = 0; s < splits; ++s) maximum = fmaxf(maximum, from[s * kWidth + kDim]);
#pragma unroll 8
  for (int s = 0; s < splits; ++s) {
    const float* part = from + s * kWidth;
    const float factor =
        part[kDim] == kMinusInfinity ? 0.0f : exp2f((part[kDim] - maximum) * kLog2E);
    sum = fmaf(part[kDim + 1], factor, sum);
    value = fmaf(part[d], factor, value);
  }
  Store(args.out, tile.first_row, head * kDim + d, value / sum);
}

// Calls `body` with the width of a head as a constant.
template <class Body>
void ForHeadDim(int32_t dim, const Body& body) {
  switch (dim) {
    case 16:
      return body(std::integral_constant<int, 16>());
    case 32:
      return body(std::integral_constant<int, 32>());
    case 64:
      return body(std::integral_constant<int, 64>());
    case 128:
      return body(std::integral_constant<int, 128>());
    default:
      return;
  }
}

}  // namespace

bool HasHeadDim(int32_t dim) { return dim == 16 || dim == 32 || dim == 64 || dim == 128; }

void LaunchAttention(cudaStream_t stream, const DeviceBatch& batch, const DeviceAttention& args,
                     const DeviceKv& kv, int32_t first_tile, int32_t tiles) {
  ForHeadDim(kv.dim, [&](auto dim) {
    constexpr int kShared = 2 * 2 * kTilePositions * dim * 2;
    cudaFuncSetAttribute(TileKernel<dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
    const dim3 grid(tiles, kv.kv_heads);
    TileKernel<dim><<<grid, kTileWarps * kWarp, kShared, stream>>>(batch, args, kv, first_tile);
  });
}

void LaunchSingleRows(cudaStream_t stream, const DeviceBatch& batch, const DeviceAttention& args,
                      const DeviceKv& kv, int32_t splits, float* partials) {
  ForHeadDim(kv.dim, [&](auto dim) {
    constexpr int kStages = kSingleWarps * 2 * 2 * kSinglePositions * dim * 2;
    constexpr int kStates = kSingleWarps * kSingleRowHeads * (dim + 2) * 4;
    constexpr int kShared = kStages > kStates ? kStages : kStates;
    cudaFuncSetAttribute(SingleRowKernel<dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         kShared);
    const dim3 grid(args.single_tiles, kv.kv_heads, splits);
    SingleRowKernel<dim>
        <<<grid, kSingleWarps * kWarp, kShared, stream>>>(batch, args, kv, splits, partials);
    if (splits == 1) return;
    MergeKernel<dim><<<dim3(args.single_tiles, args.heads), dim.value, 0, stream>>>(
        batch, args, splits, partials);
  });
}

}  // namespace kvasir::ops
