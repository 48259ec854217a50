// Quantised matrices that a checkpoint holds as several tensors: integers or 8-bit floats, scales,
// and perhaps zero points and an order of the columns. They stay where they are, in mapped files.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace kvasir::ops {

// A matrix of 4- or 8-bit integers in little-endian 32-bit words, which hold as many of one row's
// columns, or of one column's rows.
struct PackedIntegers {
  absl::Span<const uint8_t> bytes;
  int32_t bits = 4;
  bool down_rows = false;    // a word holds rows of one column
  bool awq_order = false;    // of 4 bits: a word holds items 0, 2, 4, 6, 1, 3, 5, 7 from its lowest
  int64_t word_stride = 0;   // words from one to the next along what a word holds
  int64_t other_stride = 0;  // words along the other dimension

  uint8_t At(int64_t row, int64_t column) const;
};

// A matrix of floats, or of powers of two as bytes (OCP Microscaling, E8M0: 2^(byte - 127)).
struct Scales {
  DType dtype = DType::kF32;  // a plain float, or kU8: powers of two
  absl::Span<const uint8_t> bytes;
  int64_t row_stride = 0;  // elements
  int64_t column_stride = 0;

  float At(int64_t row, int64_t column) const;
};

// weight(row, column) = scale * (q - zero), where columns share the scale in groups.
struct ScaledMatrix {
  Scales scale;
  int64_t group_columns = 0;

  // ---- Integers: kInt4, kInt8, and kMxfp4, whose integers choose from 16 values ----
  PackedIntegers q;
  bool is_signed = false;   // q in two's complement; else the middle of its range is no zero point
  bool has_zero = false;    // else zero is the middle of the range
  PackedIntegers zero;      // [rows, groups]
  int32_t zero_offset = 0;  // what is stored plus this, within the bits, is the zero point
  // Where groups are not consecutive columns: the columns group by group. Empty: they are.
  std::vector<int32_t> order;
  // Row r of a view is row first_row + r * row_step.
  int64_t first_row = 0;
  int64_t row_step = 1;

  // ---- 8-bit floats: kF8E4M3; views of them have strides ----
  const uint8_t* origin = nullptr;  // of element (0, 0)
  int64_t origin_columns = 0;
  int64_t group_rows = 1;  // rows that share a scale too

  // Of the 8-bit float at `element`, wherever a view of it lies.
  float ScaleOf(const uint8_t* element) const {
    const int64_t at = element - origin;
    return scale.At(at / origin_columns / group_rows, at % origin_columns / group_columns);
  }
};

// One row of kInt4 or kInt8 taken apart.
struct IntegerRow {
  std::vector<uint8_t> q;     // [cols], unsigned, group by group
  std::vector<float> scale;   // [groups]
  std::vector<uint8_t> zero;  // [groups], unsigned
};
void LoadIntegers(const ScaledMatrix& matrix, int64_t cols, int64_t row, IntegerRow& out);

// Expands row `row` of kInt4, kInt8 or kMxfp4 to `cols` floats, in the columns' own order.
void ExpandRow(DType dtype, const ScaledMatrix& matrix, int64_t cols, int64_t row, float* out);

// Row `row` of kMxfp4 as blocks of that type (base/dtype.h), `cols` being a multiple of 32.
void LoadMxfp4Blocks(const ScaledMatrix& matrix, int64_t cols, int64_t row, uint8_t* blocks);

}  // namespace kvasir::ops
