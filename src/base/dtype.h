// Storage types of weights: floats, the block-quantised formats of GGUF, and those whose
// scales are tensors of their own (ops/scaled_matrix.h).
#pragma once

#include <cstdint>

namespace kvasir {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBf16,
  kF8E4M3,  // 8 bits: exponent of 4, mantissa of 3, no infinities
  // Integers, which say nothing as weights without their scales.
  kU8,
  kI8,
  kI32,
  kI64,
  // Blocks of 32 weights: fp16 scale (and minimum), 4, 5 or 8 bits a weight.
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  // Super-blocks of 256 weights: fp16 scale x 6- or 8-bit scales of sub-blocks.
  kQ4_K,
  kQ5_K,
  kQ6_K,
  // Blocks of 32 values out of 16: fp16 scale; a power of two as scale (OCP Microscaling, MXFP4).
  kIq4Nl,
  kMxfp4,
  // Integers of 4 and 8 bits with scales, and perhaps zero points, of groups of columns.
  kInt4,
  kInt8,
};

struct DTypeInfo {
  const char* name;
  int32_t block_elements;
  int32_t block_bytes;
};

// Never fails: covers every enumerator.
constexpr DTypeInfo Info(DType type) {
  switch (type) {
    case DType::kF32:
      return {"F32", 1, 4};
    case DType::kF16:
      return {"F16", 1, 2};
    case DType::kBf16:
      return {"BF16", 1, 2};
    case DType::kF8E4M3:
      return {"F8_E4M3", 1, 1};
    case DType::kU8:
      return {"U8", 1, 1};
    case DType::kI8:
      return {"I8", 1, 1};
    case DType::kI32:
      return {"I32", 1, 4};
    case DType::kI64:
      return {"I64", 1, 8};
    case DType::kQ4_0:
      return {"Q4_0", 32, 18};
    case DType::kQ4_1:
      return {"Q4_1", 32, 20};
    case DType::kQ5_0:
      return {"Q5_0", 32, 22};
    case DType::kQ5_1:
      return {"Q5_1", 32, 24};
    case DType::kQ8_0:
      return {"Q8_0", 32, 34};
    case DType::kQ4_K:
      return {"Q4_K", 256, 144};
    case DType::kQ5_K:
      return {"Q5_K", 256, 176};
    case DType::kQ6_K:
      return {"Q6_K", 256, 210};
    case DType::kIq4Nl:
      return {"IQ4_NL", 32, 18};
    case DType::kMxfp4:
      return {"MXFP4", 32, 17};
    case DType::kInt4:
      return {"INT4", 2, 1};
    case DType::kInt8:
      return {"INT8", 1, 1};
  }
  return {"?", 1, 1};
}

constexpr bool IsQuantized(DType type) { return type >= DType::kQ4_0; }

// F32, F16 and BF16.
constexpr bool IsPlainFloat(DType type) { return type <= DType::kBf16; }

// Rows of it are numbers by themselves: floats and GGUF's blocks.
constexpr bool IsSelfContained(DType type) {
  return IsPlainFloat(type) || (type >= DType::kQ4_0 && type <= DType::kMxfp4);
}

}  // namespace kvasir
