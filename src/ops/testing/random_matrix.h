// Stored weight matrices for tests and benchmarks.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/dtype.h"
#include "base/float16.h"

namespace kvasir::ops {

// Random stored rows: any bytes are valid integers, the scales are set to small numbers.
inline std::vector<uint8_t> RandomMatrix(DType dtype, int64_t rows, int64_t cols,
                                         std::mt19937& random) {
  const DTypeInfo info = Info(dtype);
  std::vector<uint8_t> out(rows * cols / info.block_elements * info.block_bytes);
  for (uint8_t& b : out) b = static_cast<uint8_t>(random());
  std::uniform_real_distribution<float> value(-0.02f, 0.02f);
  const auto put = [&](size_t at) {
    const Fp16 v = ToFp16(value(random));
    std::memcpy(&out[at], &v, 2);
  };
  for (size_t block = 0; block < out.size(); block += info.block_bytes) {
    if (dtype == DType::kF32) {
      const float v = value(random);
      std::memcpy(&out[block], &v, 4);
    } else if (dtype == DType::kBf16) {
      const Bf16 v = ToBf16(value(random));
      std::memcpy(&out[block], &v, 2);
    } else if (dtype == DType::kMxfp4) {
      out[block] = static_cast<uint8_t>(118 + random() % 5);
    } else {
      put(dtype == DType::kQ6_K ? block + 208 : block);
      const bool has_minimum = dtype == DType::kQ4_1 || dtype == DType::kQ5_1 ||
                               dtype == DType::kQ4_K || dtype == DType::kQ5_K;
      if (has_minimum) put(block + 2);
    }
  }
  return out;
}

}  // namespace kvasir::ops
