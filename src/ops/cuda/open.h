// Opens an NVIDIA GPU, without a header of CUDA; OpenAccelerator calls it in builds that have it.
#pragma once

#include "ops/device_kernels.h"

namespace kvasir::ops {

StatusOr<Accelerator> OpenCuda(int ordinal, bool deterministic);

}  // namespace kvasir::ops
