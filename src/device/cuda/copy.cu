#include <algorithm>

#include "device/cuda/copy.h"

namespace kvasir::device {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    CopyKernel(uint8_t* to, const uint8_t* from, int64_t bytes) {
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  const bool aligned =
      (reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 == 0;
  const int64_t pieces = aligned ? bytes / 16 : 0;
  for (int64_t i = first; i < pieces; i += step) {
    reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
  }
  for (int64_t i = 16 * pieces + first; i < bytes; i += step) to[i] = from[i];
}

}  // namespace

void LaunchCopy(cudaStream_t stream, void* to, const void* from, int64_t bytes) {
  const int64_t blocks = (bytes / 16 + kThreads) / kThreads;
  CopyKernel<<<static_cast<unsigned>(std::min<int64_t>(blocks, 32)), kThreads, 0, stream>>>(
      static_cast<uint8_t*>(to), static_cast<const uint8_t*>(from), bytes);
}

}  // namespace kvasir::device
