#include "ops/packing.h"

#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/float16.h"
#include "ops/pack_scaled.h"

namespace kvasir::ops {
namespace {

// Byte offsets inside a panel's unit.
struct UnitLayout {
  int64_t minimum = -1;   // fp16 [16]
  int64_t scales = -1;    // bytes [groups x sub-scales][16]
  int64_t minimums = -1;  // bytes [groups][16]
  int64_t groups = 0;     // first group
  int64_t group_bytes = 0;
  int bits = 0;
  int sub_scales = 0;  // second-level scales of a group, or the only ones
  int64_t scale = 0;   // fp16 [16]
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
    case PanelFormat::kIq4Nl:
      return {-1, -1, -1, 32, 256, 4, 0};
    case PanelFormat::kMxfp4:
      return {-1, 0, -1, 16, 256, 4, 1, -1};
    default:
      return {};
  }
}

void PutBlock(const RawBlock& raw, const UnitLayout& layout, int64_t groups, int64_t row,
              uint8_t* unit) {
  if (layout.scale >= 0) std::memcpy(unit + layout.scale + 2 * row, &raw.scale, 2);
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

// The stored type of blocks that a panel format keeps.
DType StoredTypeOf(PanelFormat format) {
  constexpr DType kTypes[] = {DType::kQ4_0,  DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                              DType::kQ8_0,  DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                              DType::kIq4Nl, DType::kMxfp4};
  return kTypes[static_cast<int>(format) - static_cast<int>(PanelFormat::kQ4_0)];
}

// `row_data` are blocks of the type that the format keeps.
Status PackBlocks(const uint8_t* row_data, int64_t cols, PanelFormat format, int64_t row,
                  uint8_t* panel) {
  const DType dtype = StoredTypeOf(format);
  const DTypeInfo info = Info(dtype);
  const PanelUnit unit = UnitOf(format);
  const UnitLayout layout = LayoutOf(format);
  RawBlock raw;
  for (int64_t block = 0; block < cols / info.block_elements; ++block) {
    UnpackBlock(dtype, row_data + block * info.block_bytes, raw);
    if (dtype == DType::kMxfp4 && raw.scales[0] == 255) {
      return absl::InvalidArgumentError("has a scale that is NaN");
    }
    PutBlock(raw, layout, unit.columns / kGroup, row, panel + block * unit.bytes);
  }
  return absl::OkStatus();
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

Status PackBlockRow(const MatrixSource& source, int64_t index, PanelFormat format, int64_t row,
                    uint8_t* panel) {
  KVASIR_CHECK(PanelFormatOf(source.dtype) == format, "blocks are kept as they are");
  if (source.scaled == nullptr) {
    return PackBlocks(RowData(source, index), source.cols, format, row, panel);
  }
  const DTypeInfo info = Info(source.dtype);
  std::vector<uint8_t> blocks(source.cols / info.block_elements * info.block_bytes);
  LoadMxfp4Blocks(*source.scaled, source.cols, index, blocks.data());
  return PackBlocks(blocks.data(), source.cols, format, row, panel);
}

Status PackRow(const MatrixSource& source, int64_t index, PanelLayout layout, int64_t row,
               std::vector<float>& scratch, uint8_t* panel) {
  if (HasGroups(layout.format)) return PackIntegerRow(source, index, layout, row, scratch, panel);
  if (layout.format == PanelFormat::kF8E4M3) return PackF8Row(source, index, row, scratch, panel);
  if (IsQuantized(layout.format)) return PackBlockRow(source, index, layout.format, row, panel);
  PackFloatRow(source, index, layout.format, row, scratch, panel);
  return absl::OkStatus();
}

}  // namespace

const char* Name(PanelFormat format) {
  static constexpr const char* kNames[] = {"F32",     "F16",  "BF16",      "BF16x2", "BF16 rows",
                                           "F8_E4M3", "Q4_0", "Q4_1",      "Q5_0",   "Q5_1",
                                           "Q8_0",    "Q4_K", "Q5_K",      "Q6_K",   "IQ4_NL",
                                           "MXFP4",   "INT4", "INT4+zero", "INT8",   "INT8+zero"};
  return kNames[static_cast<int>(format)];
}

PanelUnit UnitOf(PanelLayout layout) {
  switch (layout.format) {
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
    case PanelFormat::kF8E4M3:
      return {1, 16};
    case PanelFormat::kIq4Nl:
      return {32, 288};
    case PanelFormat::kMxfp4:
      return {32, 272};
    case PanelFormat::kInt4:
    case PanelFormat::kInt4Zero:
    case PanelFormat::kInt8:
    case PanelFormat::kInt8Zero:
      return {layout.group,
              UnitHead(layout.format) + layout.group * kPanelRows * BitsOf(layout.format) / 8};
  }
  return {1, 1};
}

int64_t HeaderBytes(PanelLayout layout, int64_t cols) {
  constexpr int64_t kFactors = 4 * kPanelRows;
  if (HasGroups(layout.format)) return kFactors;
  if (layout.format != PanelFormat::kF8E4M3) return 0;
  const int64_t blocks = (cols + kF8Block - 1) / kF8Block;
  return kFactors + (4 * blocks + 63) / 64 * 64;
}

int64_t PanelBytes(PanelLayout layout, int64_t cols) {
  const PanelUnit unit = UnitOf(layout);
  return HeaderBytes(layout, cols) + cols / unit.columns * unit.bytes;
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
    case DType::kF8E4M3:
      return PanelFormat::kF8E4M3;
    case DType::kIq4Nl:
      return PanelFormat::kIq4Nl;
    case DType::kMxfp4:
      return PanelFormat::kMxfp4;
    case DType::kInt4:
      return PanelFormat::kInt4;
    case DType::kInt8:
      return PanelFormat::kInt8;
    case DType::kU8:
    case DType::kI8:
    case DType::kI32:
    case DType::kI64:
      KVASIR_CHECK(false, "integers without scales are no weights");
  }
  return PanelFormat::kF32;
}

PanelLayout StoredLayout(const MatrixSource& source) {
  const bool has_zero = source.scaled != nullptr && source.scaled->has_zero;
  if (source.dtype == DType::kInt4) {
    return {has_zero ? PanelFormat::kInt4Zero : PanelFormat::kInt4, source.scaled->group_columns};
  }
  if (source.dtype == DType::kInt8) {
    return {has_zero ? PanelFormat::kInt8Zero : PanelFormat::kInt8, source.scaled->group_columns};
  }
  return PanelFormatOf(source.dtype);
}

StatusOr<PackedMatrix> Pack(absl::Span<const MatrixSource> sources, PanelLayout layout,
                            ThreadPool& pool) {
  PanelView out;
  out.format = layout.format;
  out.group = layout.group;
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
  out.panel_bytes = PanelBytes(layout, out.cols);
  KVASIR_ASSIGN_OR_RETURN(device::Buffer data,
                          device::Buffer::Allocate(out.panels * out.panel_bytes));
  out.data = data.bytes();
  std::vector<Status> done(out.panels);
  pool.ParallelFor(out.panels, [&](int64_t p, int) {
    uint8_t* panel = data.bytes() + p * out.panel_bytes;
    std::vector<float> scratch;
    for (int64_t r = 0; r < kPanelRows && p * kPanelRows + r < out.rows && done[p].ok(); ++r) {
      const auto& [source, index] = rows[p * kPanelRows + r];
      done[p] = PackRow(*source, index, layout, r, scratch, panel);
    }
  });
  for (const Status& status : done) KVASIR_RETURN_IF_ERROR(status);
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
  const bool is_f8 = source.dtype == DType::kF8E4M3;
  if (source.scaled != nullptr && !is_f8) {
    return ExpandRow(source.dtype, *source.scaled, source.cols, index, out);
  }
  if (source.col_stride == 0 && !is_f8) {
    return DequantizeRow(source.dtype, RowData(source, index), source.cols, out);
  }
  const int64_t element = Info(source.dtype).block_bytes;
  const bool dense = source.col_stride == 0;
  const int64_t step = (dense ? 1 : source.col_stride) * element;
  const uint8_t* row = source.data + index * (dense ? source.cols : source.row_stride) * element;
  for (int64_t c = 0; c < source.cols; ++c) {
    DequantizeRow(source.dtype, row + c * step, 1, out + c);
    if (is_f8) out[c] *= source.scaled->ScaleOf(row + c * step);
  }
}

}  // namespace kvasir::ops
