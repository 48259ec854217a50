#include "ops/cpu/dispatch.h"

namespace kvasir::ops {
namespace {

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

bool HasAvx512Bf16() { return HasAvx512() && __builtin_cpu_supports("avx512bf16"); }

}  // namespace

StatusOr<const CpuKernels*> SelectKernels(std::string_view isa) {
  __builtin_cpu_init();
  if (isa == "scalar") return ScalarKernels();
  if (isa == "avx512_bf16" || (isa == "auto" && HasAvx512Bf16())) {
    if (HasAvx512Bf16()) return Avx512Bf16Kernels();
    return absl::FailedPreconditionError(
        "isa: this machine lacks avx512_bf16 (AVX-512 F, BW, VL, DQ, VNNI and BF16)");
  }
  if (isa == "avx512" || (isa == "auto" && HasAvx512())) {
    if (HasAvx512()) return Avx512Kernels();
    return absl::FailedPreconditionError("isa: this machine lacks avx512 (F, BW, VL, DQ and VNNI)");
  }
  if (isa == "avx2" || (isa == "auto" && HasAvx2())) {
    if (HasAvx2()) return Avx2Kernels();
    return absl::FailedPreconditionError("isa: this machine lacks avx2 (with FMA and F16C)");
  }
  if (isa == "auto") return ScalarKernels();
  return absl::InvalidArgumentError(absl::StrCat(
      "isa: '", std::string(isa), "' is none of auto, avx512_bf16, avx512, avx2, scalar"));
}

int64_t QuantizedRows::Bytes(int64_t rows, int64_t cols) {
  const int64_t groups = cols / kGroup;
  // Each part starts on a cache line.
  const auto line = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  return line(rows * cols) + 3 * line(rows * groups * 4) + line(rows * groups * 8);
}

QuantizedRows QuantizedRows::At(uint8_t* base, int64_t rows, int64_t cols) {
  const int64_t groups = cols / kGroup;
  const auto take = [&](int64_t bytes) {
    uint8_t* at = base;
    base += (bytes + 63) / 64 * 64;
    return at;
  };
  QuantizedRows out;
  out.cols = cols;
  out.q = reinterpret_cast<int8_t*>(take(rows * cols));
  out.scale = reinterpret_cast<float*>(take(rows * groups * 4));
  out.sum = reinterpret_cast<float*>(take(rows * groups * 4));
  out.integer_sum = reinterpret_cast<int32_t*>(take(rows * groups * 4));
  out.half_sum = reinterpret_cast<float*>(take(rows * groups * 8));
  return out;
}

int64_t AttendScratch(int32_t k_dim, int32_t v_dim) { return int64_t{kKvTile} * (k_dim + v_dim); }

}  // namespace kvasir::ops
