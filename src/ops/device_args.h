// What the kernels of a device with memory of its own are given. Light on includes, because their
// translation units go through another compiler. All pointers are the device's.
//
// Matrices of activations are float32 or BF16, weights are BF16 by rows.
#pragma once

#include <cstdint>

namespace kvasir::ops {

// Rows of a value, or of some columns of one.
struct DeviceMatrix {
  uint8_t* data = nullptr;
  bool bf16 = false;   // else float32
  int64_t stride = 0;  // elements from one row to the next
  int32_t width = 0;
};
// Every stride, width and first column is a multiple of 8, and so is half of a rotated width.

// out[m][n] = sum over k of x[m][k] * w[n][k] (+ bias[n]) (+ out[m][n])
struct DeviceMatmul {
  int64_t rows = 0;
  DeviceMatrix x;                     // BF16; width and stride are multiples of 8
  const uint16_t* weights = nullptr;  // [out.width][x.width]
  const float* bias = nullptr;
  DeviceMatrix out;
  bool accumulate = false;  // `out` is float32
};

// The KV blocks of a layer: block b begins at blocks + b * block_bytes, KV head h of it
// layer_offset + h * head_bytes behind, with K [block_size][dim] and, k_bytes behind that, V
// likewise, both BF16.
struct DeviceKv {
  uint8_t* blocks = nullptr;
  int64_t block_bytes = 0;
  int64_t layer_offset = 0;
  int64_t head_bytes = 0;
  int64_t k_bytes = 0;
  int32_t block_size = 0;
  int32_t kv_heads = 0;
  int32_t dim = 0;
};

// What the rows of a batch are. A row of position -1 is padding: it writes no KV, and what it
// computes is never read.
struct DeviceBatch {
  const int32_t* tokens = nullptr;        // [rows]
  const int32_t* positions = nullptr;     // [rows]
  const int32_t* sequences = nullptr;     // [rows] index into `table_begins`
  const int32_t* table_begins = nullptr;  // [sequences] where its blocks begin in `tables`
  const int32_t* tables = nullptr;        // the blocks of all sequences
};

// The half-split rotation of q and k; k and v go to the cache.
struct DeviceRope {
  int64_t rows = 0;
  DeviceMatrix q, k, v;  // of all heads side by side
  DeviceMatrix out;      // q, rotated and scaled
  float scale = 1;
  const float* cosines = nullptr;  // [positions][width / 2]
  const float* sines = nullptr;
  int32_t width = 0;  // rotated columns of a head, from its first
};

// Some consecutive rows of one sequence that attend together.
struct AttentionTile {
  int32_t first_row = 0;
  int32_t rows = 0;  // 0: padding
};
// Query rows times query heads of a KV head that a tile may have.
inline constexpr int32_t kTileQueries = 64;

struct DeviceAttention {
  DeviceMatrix q;  // BF16, scaled
  DeviceMatrix out;
  int32_t heads = 0;
  // The first `single_tiles` have one row each.
  const AttentionTile* tiles = nullptr;
  int32_t single_tiles = 0;
  int32_t all_tiles = 0;
};

// How a token is chosen from its row of logits: core/batch.h, RowDraw.
struct DeviceDraw {
  float temperature = 0;
  uint64_t min_weight = 1;
  int32_t top_k = 0;
  float top_p = 1;
  uint64_t noise = 0;
};

}  // namespace kvasir::ops
