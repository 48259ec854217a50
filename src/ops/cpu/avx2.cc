#include "ops/cpu/isa_avx2.h"

#include "ops/cpu/kernels_impl.h"

namespace kvasir::ops {

const CpuKernels* Avx2Kernels() {
  static constexpr CpuKernels kKernels = MakeKernels<Avx2Isa>();
  return &kKernels;
}

}  // namespace kvasir::ops
