// Random matrices whose integers, scales and zero points are tensors of their own, for tests and
// benchmarks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "base/float16.h"
#include "base/float8.h"
#include "ops/packing.h"

namespace kvasir::ops {

struct ScaledShape {
  DType dtype = DType::kInt4;
  int64_t group = 128;     // columns that share a scale
  bool has_zero = false;   // of integers
  int64_t group_rows = 1;  // rows that share a scale, of 8-bit floats
  bool shuffled = false;   // columns of a group lie anywhere
};

// Owns what its source points to.
class RandomScaled {
 public:
  RandomScaled(const ScaledShape& shape, int64_t rows, int64_t cols, std::mt19937& random)
      : rows_(rows), cols_(cols), dtype_(shape.dtype) {
    const int64_t groups = cols / shape.group;
    const int bits = shape.dtype == DType::kInt4 || shape.dtype == DType::kMxfp4 ? 4 : 8;
    q_.resize(rows * cols * bits / 8);
    const bool floats = shape.dtype == DType::kF8E4M3;
    for (uint8_t& byte : q_) {
      byte = static_cast<uint8_t>(random());
      if (floats && IsNan(Fp8{byte})) byte ^= 1;
    }
    zero_.resize(rows * (groups + 7) / 8 * 32);
    for (uint8_t& byte : zero_) byte = static_cast<uint8_t>(random());
    scaled_.group_columns = shape.group;
    scaled_.group_rows = shape.group_rows;
    scaled_.q = {.bytes = q_, .bits = bits, .word_stride = 1, .other_stride = cols * bits / 32};
    scaled_.has_zero = shape.has_zero;
    const int64_t zero_words = (groups * bits + 31) / 32;
    scaled_.zero = {.bytes = zero_, .bits = bits, .word_stride = 1, .other_stride = zero_words};
    scaled_.origin = q_.data();
    scaled_.origin_columns = cols;
    if (shape.dtype == DType::kMxfp4) {
      scales_.resize(rows * groups);
      for (uint8_t& byte : scales_) byte = static_cast<uint8_t>(118 + random() % 5);
      scaled_.scale = {DType::kU8, scales_, groups, 1};
    } else {
      std::uniform_real_distribution<float> value(0.001f, 0.02f);
      for (int64_t i = 0; i < rows * groups; ++i) {
        const Bf16 scale = ToBf16(value(random));
        scales_.push_back(static_cast<uint8_t>(scale.bits));
        scales_.push_back(static_cast<uint8_t>(scale.bits >> 8));
      }
      scaled_.scale = {DType::kBf16, scales_, groups, 1};
    }
    if (shape.shuffled) {
      scaled_.order.resize(cols);
      for (int64_t i = 0; i < cols; ++i) scaled_.order[i] = static_cast<int32_t>(i);
      std::shuffle(scaled_.order.begin(), scaled_.order.end(), random);
    }
  }
  RandomScaled(const RandomScaled&) = delete;
  RandomScaled& operator=(const RandomScaled&) = delete;

  MatrixSource source() const { return {dtype_, rows_, cols_, q_.data(), &scaled_}; }
  // Of all its tensors.
  int64_t bytes() const {
    const int64_t zeros = scaled_.has_zero ? rows_ * (cols_ / scaled_.group_columns) : 0;
    return q_.size() + scales_.size() + zeros * scaled_.zero.bits / 8;
  }

 private:
  int64_t rows_, cols_;
  DType dtype_;
  std::vector<uint8_t> q_, scales_, zero_;
  ScaledMatrix scaled_;
};

}  // namespace kvasir::ops
