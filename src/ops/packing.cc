#include "ops/packing.h"

#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/float16.h"
#include "ops/quantize_weights.h"

namespace kvasir::ops {
namespace {

// One storage block taken apart: integers as stored (unsigned, or two's complement for Q8_0) and
// its scales, without any arithmetic.
struct RawBlock {
  uint8_t q[256];
  uint16_t scale = 0;       // fp16
  uint16_t minimum = 0;     // fp16
  uint8_t scales[16] = {};  // second level of K-quants
  uint8_t minimums[8] = {};
};

uint16_t Load16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

uint32_t Load32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

void UnpackNibbles(const uint8_t* nibbles, uint8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = nibbles[i] & 15;
    q[i + 16] = nibbles[i] >> 4;
  }
}

void AddFifthBits(uint32_t bits, uint8_t* q) {
  for (int i = 0; i < 32; ++i) q[i] |= ((bits >> i) & 1) << 4;
}

// The 6-bit scales and minimums of Q4_K and Q5_K, packed into 12 bytes.
void UnpackKScales(const uint8_t* packed, RawBlock& out) {
  for (int j = 0; j < 4; ++j) {
    out.scales[j] = packed[j] & 63;
    out.minimums[j] = packed[j + 4] & 63;
    out.scales[j + 4] = (packed[j + 8] & 15) | ((packed[j] >> 6) << 4);
    out.minimums[j + 4] = (packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4);
  }
}

void UnpackQ45K(const uint8_t* block, bool five_bits, RawBlock& out) {
  out.scale = Load16(block);
  out.minimum = Load16(block + 2);
  UnpackKScales(block + 4, out);
  const uint8_t* high = block + 16;
  const uint8_t* nibbles = five_bits ? block + 48 : block + 16;
  for (int group = 0; group < 8; ++group) {
    for (int i = 0; i < 32; ++i) {
      const uint8_t byte = nibbles[group / 2 * 32 + i];
      uint8_t q = group % 2 == 0 ? byte & 15 : byte >> 4;
      if (five_bits) q |= ((high[i] >> group) & 1) << 4;
      out.q[group * 32 + i] = q;
    }
  }
}

void UnpackQ6K(const uint8_t* block, RawBlock& out) {
  std::memcpy(out.scales, block + 192, 16);
  out.scale = Load16(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + 64 * half;
    const uint8_t* high = block + 128 + 32 * half;
    uint8_t* q = out.q + 128 * half;
    for (int i = 0; i < 32; ++i) {
      q[i] = (low[i] & 15) | ((high[i] & 3) << 4);
      q[i + 32] = (low[i + 32] & 15) | (((high[i] >> 2) & 3) << 4);
      q[i + 64] = (low[i] >> 4) | (((high[i] >> 4) & 3) << 4);
      q[i + 96] = (low[i + 32] >> 4) | ((high[i] >> 6) << 4);
    }
  }
}

void UnpackBlock(DType dtype, const uint8_t* block, RawBlock& out) {
  switch (dtype) {
    case DType::kQ4_0:
      out.scale = Load16(block);
      UnpackNibbles(block + 2, out.q);
      return;
    case DType::kQ4_1:
      out.scale = Load16(block);
      out.minimum = Load16(block + 2);
      UnpackNibbles(block + 4, out.q);
      return;
    case DType::kQ5_0:
      out.scale = Load16(block);
      UnpackNibbles(block + 6, out.q);
      AddFifthBits(Load32(block + 2), out.q);
      return;
    case DType::kQ5_1:
      out.scale = Load16(block);
      out.minimum = Load16(block + 2);
      UnpackNibbles(block + 8, out.q);
      AddFifthBits(Load32(block + 4), out.q);
      return;
    case DType::kQ8_0:
      out.scale = Load16(block);
      std::memcpy(out.q, block + 2, 32);
      return;
    case DType::kQ4_K:
      return UnpackQ45K(block, false, out);
    case DType::kQ5_K:
      return UnpackQ45K(block, true, out);
    case DType::kQ6_K:
      return UnpackQ6K(block, out);
    default:
      KVASIR_CHECK(false, "a float type has no blocks");
  }
}

void DequantizeBlock(DType dtype, const uint8_t* block, float* out) {
  RawBlock raw;
  UnpackBlock(dtype, block, raw);
  const float d = ToFloat(Fp16{raw.scale});
  const float m = ToFloat(Fp16{raw.minimum});
  const int n = Info(dtype).block_elements;
  for (int i = 0; i < n; ++i) {
    const float q = raw.q[i];
    switch (dtype) {
      case DType::kQ4_0:
        out[i] = d * (q - 8.0f);
        break;
      case DType::kQ5_0:
        out[i] = d * (q - 16.0f);
        break;
      case DType::kQ8_0:
        out[i] = d * static_cast<int8_t>(raw.q[i]);
        break;
      case DType::kQ4_1:
      case DType::kQ5_1:
        out[i] = d * q + m;
        break;
      case DType::kQ6_K:
        out[i] = d * static_cast<int8_t>(raw.scales[i / 16]) * (q - 32.0f);
        break;
      default:
        out[i] = d * raw.scales[i / 32] * q - m * raw.minimums[i / 32];
        break;
    }
  }
}

// Byte offsets inside a panel's unit.
struct UnitLayout {
  int64_t minimum = -1;   // fp16 [16]
  int64_t scales = -1;    // bytes [groups x sub-scales][16]
  int64_t minimums = -1;  // bytes [groups][16]
  int64_t groups = 0;     // first group
  int64_t group_bytes = 0;
  int bits = 0;
  int sub_scales = 0;  // second-level scales of a group
};

UnitLayout LayoutOf(PanelFormat format) {
  switch (format) {
    case PanelFormat::kQ4_0:
      return {-1, -1, -1, 32, 256, 4, 0};
    case PanelFormat::kQ4_1:
      return {32, -1, -1, 64, 256, 4, 0};
    case PanelFormat::kQ5_0:
      return {-1, -1, -1, 32, 320, 5, 0};
    case PanelFormat::kQ5_1:
      return {32, -1, -1, 64, 320, 5, 0};
    case PanelFormat::kQ8_0:
      return {-1, -1, -1, 32, 512, 8, 0};
    case PanelFormat::kQ4_K:
      return {32, 64, 192, 320, 256, 4, 1};
    case PanelFormat::kQ5_K:
      return {32, 64, 192, 320, 320, 5, 1};
    case PanelFormat::kQ6_K:
      return {-1, 32, -1, 288, 384, 6, 2};
    default:
      return {};
  }
}

// Writes the 32 integers of one row's group into the group's area.
void PutGroup(const uint8_t* q, int bits, int64_t row, uint8_t* group) {
  for (int column = 0; column < 32; ++column) {
    const int step = column / 4;
    const int64_t lane = row * 4 + column % 4;
    if (bits == 8) {
      group[step * 64 + lane] = q[column];
      continue;
    }
    group[step % 4 * 64 + lane] |= (q[column] & 15) << (step < 4 ? 0 : 4);
    if (bits == 5) group[256 + lane] |= (q[column] >> 4) << step;
    if (bits == 6) group[256 + step / 4 * 64 + lane] |= (q[column] >> 4) << (2 * (step % 4));
  }
}

void PutBlock(const RawBlock& raw, const UnitLayout& layout, int64_t groups, int64_t row,
              uint8_t* unit) {
  std::memcpy(unit + 2 * row, &raw.scale, 2);
  if (layout.minimum >= 0) std::memcpy(unit + layout.minimum + 2 * row, &raw.minimum, 2);
  for (int64_t group = 0; group < groups; ++group) {
    for (int sub = 0; sub < layout.sub_scales; ++sub) {
      const int64_t index = group * layout.sub_scales + sub;
      unit[layout.scales + index * kPanelRows + row] = raw.scales[index];
    }
    if (layout.minimums >= 0) {
      unit[layout.minimums + group * kPanelRows + row] = raw.minimums[group];
    }
    PutGroup(raw.q + group * 32, layout.bits, row,
             unit + layout.groups + group * layout.group_bytes);
  }
}

// The stored type that a quantised panel format keeps.
DType StoredTypeOf(PanelFormat format) {
  constexpr DType kTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                              DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};
  return kTypes[static_cast<int>(format) - static_cast<int>(PanelFormat::kQ4_0)];
}

// `row_data` are blocks of the type that the format keeps.
void PackBlocks(const uint8_t* row_data, int64_t cols, PanelFormat format, int64_t row,
                uint8_t* panel) {
  const DType dtype = StoredTypeOf(format);
  const DTypeInfo info = Info(dtype);
  const PanelUnit unit = UnitOf(format);
  const UnitLayout layout = LayoutOf(format);
  RawBlock raw;
  for (int64_t block = 0; block < cols / info.block_elements; ++block) {
    UnpackBlock(dtype, row_data + block * info.block_bytes, raw);
    PutBlock(raw, layout, unit.columns / kGroup, row, panel + block * unit.bytes);
  }
}

// Where the element of a row and column of a panel lies.
int64_t Bf16Slot(PanelFormat format, int64_t cols, int64_t row, int64_t column) {
  if (format == PanelFormat::kBf16Rows) return row * cols + column;
  if (format == PanelFormat::kBf16) return column * kPanelRows + row;
  return (column / 2 * kPanelRows + row) * 2 + column % 2;
}

void PackFloatRow(const MatrixSource& source, int64_t index, PanelFormat format, int64_t row,
                  std::vector<float>& scratch, uint8_t* panel) {
  scratch.resize(source.cols);
  LoadRow(source, index, scratch.data());
  for (int64_t c = 0; c < source.cols; ++c) {
    const float value = scratch[c];
    const int64_t at = c * kPanelRows + row;
    if (format == PanelFormat::kF32) {
      std::memcpy(panel + 4 * at, &value, 4);
    } else if (format == PanelFormat::kF16) {
      const Fp16 half = ToFp16(value);
      std::memcpy(panel + 2 * at, &half, 2);
    } else {
      const Bf16 half = ToBf16(value);
      std::memcpy(panel + 2 * Bf16Slot(format, source.cols, row, c), &half, 2);
    }
  }
}

const uint8_t* RowData(const MatrixSource& source, int64_t index) {
  const DTypeInfo info = Info(source.dtype);
  return source.data + index * (source.cols / info.block_elements * info.block_bytes);
}

void PackQuantizedRow(const MatrixSource& source, int64_t index, PanelFormat format, int64_t row,
                      std::vector<float>& scratch, uint8_t* panel) {
  if (PanelFormatOf(source.dtype) == format) {
    return PackBlocks(RowData(source, index), source.cols, format, row, panel);
  }
  const DType dtype = StoredTypeOf(format);
  const DTypeInfo info = Info(dtype);
  scratch.resize(source.cols);
  LoadRow(source, index, scratch.data());
  std::vector<uint8_t> blocks(source.cols / info.block_elements * info.block_bytes);
  QuantizeRow(dtype, scratch.data(), source.cols, blocks.data());
  PackBlocks(blocks.data(), source.cols, format, row, panel);
}

}  // namespace

const char* Name(PanelFormat format) {
  static constexpr const char* kNames[] = {"F32",  "F16",  "BF16", "BF16x2", "BF16 rows",
                                           "Q4_0", "Q4_1", "Q5_0", "Q5_1",   "Q8_0",
                                           "Q4_K", "Q5_K", "Q6_K"};
  return kNames[static_cast<int>(format)];
}

PanelUnit UnitOf(PanelFormat format) {
  switch (format) {
    case PanelFormat::kF32:
      return {1, 64};
    case PanelFormat::kF16:
    case PanelFormat::kBf16:
      return {1, 32};
    case PanelFormat::kBf16Pairs:
      return {2, 64};
    case PanelFormat::kBf16Rows:
      return {8, 256};
    case PanelFormat::kQ4_0:
      return {32, 288};
    case PanelFormat::kQ4_1:
      return {32, 320};
    case PanelFormat::kQ5_0:
      return {32, 352};
    case PanelFormat::kQ5_1:
      return {32, 384};
    case PanelFormat::kQ8_0:
      return {32, 544};
    case PanelFormat::kQ4_K:
      return {256, 320 + 8 * 256};
    case PanelFormat::kQ5_K:
      return {256, 320 + 8 * 320};
    case PanelFormat::kQ6_K:
      return {256, 288 + 8 * 384};
  }
  return {1, 1};
}

PanelFormat PanelFormatOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return PanelFormat::kF32;
    case DType::kF16:
      return PanelFormat::kF16;
    case DType::kBf16:
      return PanelFormat::kBf16;
    case DType::kQ4_0:
      return PanelFormat::kQ4_0;
    case DType::kQ4_1:
      return PanelFormat::kQ4_1;
    case DType::kQ5_0:
      return PanelFormat::kQ5_0;
    case DType::kQ5_1:
      return PanelFormat::kQ5_1;
    case DType::kQ8_0:
      return PanelFormat::kQ8_0;
    case DType::kQ4_K:
      return PanelFormat::kQ4_K;
    case DType::kQ5_K:
      return PanelFormat::kQ5_K;
    case DType::kQ6_K:
      return PanelFormat::kQ6_K;
  }
  return PanelFormat::kF32;
}

StatusOr<PackedMatrix> Pack(absl::Span<const MatrixSource> sources, PanelFormat format,
                            ThreadPool& pool) {
  PanelView out;
  out.format = format;
  out.cols = sources[0].cols;
  struct Row {
    const MatrixSource* source;
    int64_t index;
  };
  std::vector<Row> rows;
  for (const MatrixSource& source : sources) {
    KVASIR_CHECK(source.cols == out.cols, "stacked matrices have the same columns");
    for (int64_t i = 0; i < source.rows; ++i) {
      rows.push_back({&source, StoredRow(source.interleaved, i)});
    }
  }
  out.rows = static_cast<int64_t>(rows.size());
  out.panels = (out.rows + kPanelRows - 1) / kPanelRows;
  const PanelUnit unit = UnitOf(format);
  out.panel_bytes = out.cols / unit.columns * unit.bytes;
  KVASIR_ASSIGN_OR_RETURN(device::Buffer data,
                          device::Buffer::Allocate(out.panels * out.panel_bytes));
  out.data = data.bytes();
  pool.ParallelFor(out.panels, [&](int64_t p, int) {
    uint8_t* panel = data.bytes() + p * out.panel_bytes;
    std::vector<float> scratch;
    for (int64_t r = 0; r < kPanelRows && p * kPanelRows + r < out.rows; ++r) {
      const auto& [source, index] = rows[p * kPanelRows + r];
      IsQuantized(format) ? PackQuantizedRow(*source, index, format, r, scratch, panel)
                          : PackFloatRow(*source, index, format, r, scratch, panel);
    }
  });
  return PackedMatrix{out, std::move(data)};
}

int64_t StoredRow(const MatrixSource::Interleaved& rows, int64_t index) {
  if (rows.width == 0) return index;
  const int64_t within = index % rows.stride - rows.begin;
  if (within < 0 || within >= rows.width) return index;
  const int64_t half = rows.width / 2;
  return index - within + (within < half ? 2 * within : 2 * (within - half) + 1);
}

void LoadRow(const MatrixSource& source, int64_t index, float* out) {
  if (source.col_stride == 0) {
    return DequantizeRow(source.dtype, RowData(source, index), source.cols, out);
  }
  const int64_t element = Info(source.dtype).block_bytes;
  const uint8_t* row = source.data + index * source.row_stride * element;
  for (int64_t c = 0; c < source.cols; ++c) {
    DequantizeRow(source.dtype, row + c * source.col_stride * element, 1, out + c);
  }
}

void DequantizeRow(DType dtype, const uint8_t* row, int64_t cols, float* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, row, cols * 4);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < cols; ++i) out[i] = ToFloat(Fp16{Load16(row + 2 * i)});
      return;
    case DType::kBf16:
      for (int64_t i = 0; i < cols; ++i) out[i] = ToFloat(Bf16{Load16(row + 2 * i)});
      return;
    default:
      break;
  }
  const DTypeInfo info = Info(dtype);
  for (int64_t block = 0; block < cols / info.block_elements; ++block) {
    DequantizeBlock(dtype, row + block * info.block_bytes, out + block * info.block_elements);
  }
}

}  // namespace kvasir::ops
