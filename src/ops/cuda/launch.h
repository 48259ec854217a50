// The kernels' launches, for the one class that gives them (cuda_kernels.cc). Each is one or two
// kernels on a stream; errors of a launch are found by cudaGetLastError.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/device_args.h"

namespace kvasir::ops {

// rows.cu
// cudaErrorNoKernelImageForDevice and the like when the device in use has none.
cudaError_t FindKernels();
void LaunchEmbed(cudaStream_t stream, const DeviceBatch& batch, int64_t rows, const uint16_t* table,
                 float scale, const DeviceMatrix& out);
void LaunchRmsNorm(cudaStream_t stream, int64_t rows, const DeviceMatrix& x, const float* weight,
                   float eps, int32_t head_width, const DeviceMatrix& out);
void LaunchRopeKvWrite(cudaStream_t stream, const DeviceBatch& batch, const DeviceRope& args,
                       const DeviceKv& kv);
void LaunchGated(cudaStream_t stream, int64_t rows, const DeviceMatrix& gate,
                 const DeviceMatrix& up, const DeviceMatrix& out);
void LaunchConvert(cudaStream_t stream, int64_t rows, const DeviceMatrix& x,
                   const DeviceMatrix& out);
void LaunchAddBias(cudaStream_t stream, int64_t rows, const float* bias, const DeviceMatrix& out);
void LaunchSelectRows(cudaStream_t stream, int64_t rows, const int32_t* which,
                      const DeviceMatrix& x, const DeviceMatrix& out);

// matmul.cu
// Each sum in one order, whatever the number of rows.
void LaunchTiledMatmul(cudaStream_t stream, const DeviceMatmul& args);
// For up to kVectorRows rows: reads the weights once, at the speed of memory.
inline constexpr int64_t kVectorRows = 4;
void LaunchVectorMatmul(cudaStream_t stream, const DeviceMatmul& args);

// draw.cu
void LaunchDraw(cudaStream_t stream, int64_t rows, const DeviceMatrix& logits,
                const DeviceDraw* draws, int32_t* ids);

// attention.cu
// The widths of heads that there are kernels for.
bool HasHeadDim(int32_t dim);
// Most query heads of a KV head that LaunchSingleRows does.
inline constexpr int32_t kSingleRowHeads = 16;
void LaunchAttention(cudaStream_t stream, const DeviceBatch& batch, const DeviceAttention& args,
                     const DeviceKv& kv, int32_t first_tile, int32_t tiles);
// The tiles of one row each, of which the KV is split into `splits` parts; those are left in
// `partials`, [tile][head][split][dim + 2], and merged in order.
void LaunchSingleRows(cudaStream_t stream, const DeviceBatch& batch, const DeviceAttention& args,
                      const DeviceKv& kv, int32_t splits, float* partials);

}  // namespace kvasir::ops
