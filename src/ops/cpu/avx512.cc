#include "ops/cpu/isa_avx512.h"

#include "ops/cpu/kernels_impl.h"

namespace kvasir::ops {

const CpuKernels* Avx512Bf16Kernels() {
  static constexpr CpuKernels kKernels = MakeKernels<Avx512Isa>();
  return &kKernels;
}

// BF16 instructions are in the products of pairs alone, which come as intrinsics.
const CpuKernels* Avx512Kernels() {
  static constexpr CpuKernels kKernels = [] {
    CpuKernels kernels = MakeKernels<Avx512Isa>();
    kernels.name = "avx512";
    kernels.bf16_pairs = false;
    return kernels;
  }();
  return &kKernels;
}

}  // namespace kvasir::ops
