#include "ops/cpu/isa_avx512.h"

#include "ops/cpu/kernels_impl.h"

namespace kvasir::ops {

const CpuKernels* Avx512Kernels() {
  static constexpr CpuKernels kKernels = MakeKernels<Avx512Isa>();
  return &kKernels;
}

}  // namespace kvasir::ops
