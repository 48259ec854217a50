#include "ops/scaled_matrix.h"

#include <cmath>
#include <cstring>

#include "base/float16.h"
#include "ops/stored_blocks.h"

namespace kvasir::ops {

uint8_t PackedIntegers::At(int64_t row, int64_t column) const {
  constexpr int kAwqPlace[] = {0, 4, 1, 5, 2, 6, 3, 7};
  const int64_t along = down_rows ? row : column;
  const int64_t other = down_rows ? column : row;
  const int per_word_log2 = bits == 4 ? 3 : 2;
  uint32_t word;
  std::memcpy(&word,
              bytes.data() + 4 * ((along >> per_word_log2) * word_stride + other * other_stride),
              sizeof(word));
  const int64_t item = along & ((1 << per_word_log2) - 1);
  const int64_t place = awq_order ? kAwqPlace[item] : item;
  return static_cast<uint8_t>(word >> (bits * place) & ((1u << bits) - 1));
}

float Scales::At(int64_t row, int64_t column) const {
  const int64_t index = row * row_stride + column * column_stride;
  if (dtype == DType::kU8) return std::ldexp(1.0f, bytes[index] - 127);
  float out;
  DequantizeRow(dtype, bytes.data() + index * Info(dtype).block_bytes, 1, &out);
  return out;
}

void LoadIntegers(const ScaledMatrix& matrix, int64_t cols, int64_t row, IntegerRow& out) {
  const int64_t stored = matrix.first_row + row * matrix.row_step;
  const int64_t groups = cols / matrix.group_columns;
  const uint8_t middle = static_cast<uint8_t>(1 << (matrix.q.bits - 1));
  const uint8_t flip = matrix.is_signed ? middle : 0;
  out.q.resize(cols);
  for (int64_t i = 0; i < cols; ++i) {
    out.q[i] = matrix.q.At(stored, matrix.order.empty() ? i : matrix.order[i]) ^ flip;
  }
  out.scale.resize(groups);
  out.zero.assign(groups, middle);
  for (int64_t g = 0; g < groups; ++g) {
    out.scale[g] = matrix.scale.At(stored, g);
    if (!matrix.has_zero) continue;
    const int zero = matrix.zero.At(stored, g) + matrix.zero_offset;
    out.zero[g] = static_cast<uint8_t>(zero & (2 * middle - 1)) ^ flip;
  }
}

void LoadMxfp4Blocks(const ScaledMatrix& matrix, int64_t cols, int64_t row, uint8_t* blocks) {
  const int64_t stored = matrix.first_row + row * matrix.row_step;
  for (int64_t block = 0; block < cols / 32; ++block, blocks += 17) {
    blocks[0] = matrix.scale.bytes[stored * matrix.scale.row_stride + block];
    for (int64_t i = 0; i < 16; ++i) {
      const uint8_t low = matrix.q.At(stored, block * 32 + i);
      const uint8_t high = matrix.q.At(stored, block * 32 + 16 + i);
      blocks[1 + i] = static_cast<uint8_t>(low | high << 4);
    }
  }
}

void ExpandRow(DType dtype, const ScaledMatrix& matrix, int64_t cols, int64_t row, float* out) {
  if (dtype == DType::kMxfp4) {
    std::vector<uint8_t> blocks(cols / 32 * 17);
    LoadMxfp4Blocks(matrix, cols, row, blocks.data());
    return DequantizeRow(dtype, blocks.data(), cols, out);
  }
  IntegerRow values;
  LoadIntegers(matrix, cols, row, values);
  for (int64_t i = 0; i < cols; ++i) {
    const int64_t group = i / matrix.group_columns;
    const float weight =
        values.scale[group] * static_cast<float>(values.q[i] - int{values.zero[group]});
    out[matrix.order.empty() ? i : matrix.order[i]] = weight;
  }
}

}  // namespace kvasir::ops
