// Storage types of weights: IEEE floats and the block-quantised formats of GGUF.
#pragma once

#include <cstdint>

namespace kvasir {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBf16,
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
  }
  return {"?", 1, 1};
}

constexpr bool IsQuantized(DType type) { return type >= DType::kQ4_0; }

}  // namespace kvasir
