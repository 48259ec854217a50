// The kernel families that a test compares.
#pragma once

#include <vector>

#include "ops/cpu/dispatch.h"

namespace kvasir::ops {

// Those that this machine runs, the scalar one first.
inline std::vector<const CpuKernels*> Families() {
  std::vector<const CpuKernels*> out;
  for (const char* isa : {"scalar", "avx2", "avx512", "avx512_bf16"}) {
    const auto kernels = SelectKernels(isa);
    if (kernels.ok()) out.push_back(*kernels);
  }
  return out;
}

}  // namespace kvasir::ops
