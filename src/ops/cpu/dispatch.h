// Choice of the kernel family at start.
#pragma once

#include <string_view>

#include "base/status.h"
#include "ops/cpu/kernels.h"

namespace kvasir::ops {

// The family that `isa` names: "scalar", "avx2", "avx512", "avx512_bf16", or "auto" for the best
// that this machine runs. An unknown name, or one that this machine lacks, is an error that says
// so.
StatusOr<const CpuKernels*> SelectKernels(std::string_view isa);

}  // namespace kvasir::ops
