#include "ops/cpu/isa_scalar.h"

#include "ops/cpu/kernels_impl.h"

namespace kvasir::ops {

const CpuKernels* ScalarKernels() {
  static constexpr CpuKernels kKernels = MakeKernels<ScalarIsa>();
  return &kKernels;
}

}  // namespace kvasir::ops
