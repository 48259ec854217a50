// What the translation units of the CUDA kernels share: loads, stores and tensor-core instructions.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "ops/device_args.h"

namespace kvasir::ops {

constexpr int kWarp = 32;

__device__ inline float Load(const DeviceMatrix& m, int64_t row, int64_t column) {
  const int64_t at = row * m.stride + column;
  return m.bf16 ? __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(m.data)[at])
                : reinterpret_cast<const float*>(m.data)[at];
}

__device__ inline void Store(const DeviceMatrix& m, int64_t row, int64_t column, float x) {
  const int64_t at = row * m.stride + column;
  if (m.bf16) {
    reinterpret_cast<__nv_bfloat16*>(m.data)[at] = __float2bfloat16_rn(x);
  } else {
    reinterpret_cast<float*>(m.data)[at] = x;
  }
}

// Two neighbouring columns, the first of an even number.
__device__ inline void StorePair(const DeviceMatrix& m, int64_t row, int64_t column, float x,
                                 float y) {
  const int64_t at = row * m.stride + column;
  if (m.bf16) {
    *reinterpret_cast<__nv_bfloat162*>(m.data + 2 * at) = __floats2bfloat162_rn(x, y);
  } else {
    *reinterpret_cast<float2*>(m.data + 4 * at) = make_float2(x, y);
  }
}

__device__ inline uint32_t Pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Eight neighbouring columns, the first a multiple of eight of a matrix whose rows are, too.
struct alignas(16) Eight {
  float x[8];
};

__device__ inline Eight LoadEight(const DeviceMatrix& m, int64_t row, int64_t column) {
  const int64_t at = row * m.stride + column;
  Eight out;
  if (m.bf16) {
    const uint4 packed = *reinterpret_cast<const uint4*>(m.data + 2 * at);
    const uint32_t pairs[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out.x[2 * i] = __uint_as_float(pairs[i] << 16);
      out.x[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
  } else {
    const float4* from = reinterpret_cast<const float4*>(m.data + 4 * at);
    *reinterpret_cast<float4*>(out.x) = from[0];
    *reinterpret_cast<float4*>(out.x + 4) = from[1];
  }
  return out;
}

__device__ inline void StoreEight(const DeviceMatrix& m, int64_t row, int64_t column,
                                  const Eight& v) {
  const int64_t at = row * m.stride + column;
  if (m.bf16) {
    *reinterpret_cast<uint4*>(m.data + 2 * at) = make_uint4(
        Pack(v.x[0], v.x[1]), Pack(v.x[2], v.x[3]), Pack(v.x[4], v.x[5]), Pack(v.x[6], v.x[7]));
  } else {
    float4* to = reinterpret_cast<float4*>(m.data + 4 * at);
    to[0] = *reinterpret_cast<const float4*>(v.x);
    to[1] = *reinterpret_cast<const float4*>(v.x + 4);
  }
}

// ---- Shared memory ----

// Rows of kWidth BF16 in shared memory. Pieces of 16 bytes are permuted within a row, so that the
// eight rows that an ldmatrix reads lie in different banks.
template <int kWidth>
struct SharedRows {
  static constexpr int kPieces = kWidth / 8;
  static constexpr int kMask = kPieces < 8 ? kPieces - 1 : 7;

  __device__ static uint32_t Address(uint32_t base, int row, int piece) {
    return base + (row * kPieces + (piece ^ (row & kMask))) * 16;
  }
};

__device__ inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes on their way to shared memory; zeros where not `valid`.
__device__ inline void CopyAsync(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;"); }
template <int kPending>
__device__ inline void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending));
}

__device__ inline void LoadMatrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ inline void LoadTransposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

// c[16][8] += a[16][16] b[8][16]^T
__device__ inline void MultiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace kvasir::ops
