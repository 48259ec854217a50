// Rows of weights as GGUF stores them, and plain floats: taken apart and expanded.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace kvasir::ops {

// One storage block taken apart: integers as stored (unsigned, or two's complement for Q8_0) and
// its scales, without any arithmetic.
struct RawBlock {
  uint8_t q[256];
  uint16_t scale = 0;       // fp16
  uint16_t minimum = 0;     // fp16
  uint8_t scales[16] = {};  // second level of K-quants
  uint8_t minimums[8] = {};
};

void UnpackBlock(DType dtype, const uint8_t* block, RawBlock& out);

// Expands `cols` elements of one stored row to float; of kF8E4M3 without its scale.
void DequantizeRow(DType dtype, const uint8_t* row, int64_t cols, float* out);

}  // namespace kvasir::ops
