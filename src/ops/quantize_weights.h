// Rounding of weights to fewer bits, for models that come in float or are to be smaller.
#pragma once

#include <cstdint>

#include "ops/scaled_matrix.h"

namespace kvasir::ops {

// Rounds `cols` floats to integers of 4 or 8 bits with a scale for every `group` columns, which
// divides cols, and where `has_zero` a zero point; else zero is the middle of the range. Of the
// scales and zero points that are tried around the range of a group's values it has those of least
// squared error. Scales are of fp16 where there are several. A float that is not finite counts as
// 0.
void RoundToIntegers(const float* x, int64_t cols, int64_t group, int bits, bool has_zero,
                     IntegerRow& out);

// Rounds to 8-bit floats E4M3 and returns their scale. A float that is not finite counts as 0.
float RoundToF8(const float* x, int64_t cols, uint8_t* out);

}  // namespace kvasir::ops
