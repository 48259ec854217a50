// Rounding of weights to the block formats, for models that come in float or are to be smaller.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace kvasir::ops {

// Rounds `cols` floats, a multiple of 32, into blocks of `type`: kQ8_0 (8 bits) or kQ4_1 (4 bits
// with a minimum). Every block has the scale, and minimum, of least squared error among those that
// are tried around the range of its values; a float that is not finite counts as 0.
void QuantizeRow(DType type, const float* x, int64_t cols, uint8_t* blocks);

}  // namespace kvasir::ops
