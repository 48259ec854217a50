// Copies by a kernel, for cuda_device.cc.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace kvasir::device {

// Either side may be pinned memory of the host, which the device reads and writes itself.
void LaunchCopy(cudaStream_t stream, void* to, const void* from, int64_t bytes);

}  // namespace kvasir::device
