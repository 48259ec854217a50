#include "ops/pack_scaled.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/float16.h"
#include "base/float8.h"
#include "ops/quantize_weights.h"

namespace kvasir::ops {
namespace {

// Scales as fp16 times one factor of the row, which is a power of two where they differ. False
// where that would round one.
bool SplitScales(const std::vector<float>& scales, float* factor, std::vector<Fp16>& halves) {
  float largest = 0.0f;
  bool finite = true, equal = true;
  for (const float s : scales) {
    largest = std::max(largest, std::abs(s));
    finite = finite && std::isfinite(s);
    equal = equal && s == scales[0];
  }
  halves.assign(scales.size(), ToFp16(1.0f));
  *factor = scales[0];
  if (equal || !finite) return finite;
  const auto split = [&](int power) {
    *factor = std::ldexp(1.0f, power);
    bool exact = true;
    for (size_t i = 0; i < scales.size(); ++i) {
      halves[i] = ToFp16(std::ldexp(scales[i], -power));
      exact = exact && std::ldexp(ToFloat(halves[i]), power) == scales[i];
    }
    return exact;
  };
  // As they are, or with the largest just below the end of fp16's range.
  return split(0) || split(std::ilogb(largest) - 14);
}

// Where the header of a panel of 8-bit floats has its factors and scales.
void PutFloat(uint8_t* panel, int64_t index, float value) {
  std::memcpy(panel + 4 * index, &value, sizeof(value));
}
float GetFloat(const uint8_t* panel, int64_t index) {
  float value;
  std::memcpy(&value, panel + 4 * index, sizeof(value));
  return value;
}

// Copies a stored row with its scales.
Status PackF8Stored(const MatrixSource& source, int64_t index, int64_t row, uint8_t* panel,
                    uint8_t* q) {
  const ScaledMatrix& scaled = *source.scaled;
  const bool dense = source.col_stride == 0;
  const int64_t step = dense ? 1 : source.col_stride;
  const uint8_t* first = source.data + index * (dense ? source.cols : source.row_stride);
  const bool own = scaled.group_rows == 1;  // scales of rows, else of blocks
  const float scale = scaled.ScaleOf(first);
  PutFloat(panel, row, (own ? scale : 1.0f) * 256.0f);
  for (int64_t begin = 0; begin < source.cols; begin += kF8Block) {
    const int64_t end = std::min(begin + kF8Block, source.cols);
    const float of_block = own ? 1.0f : scaled.ScaleOf(first + begin * step);
    const int64_t slot = kPanelRows + begin / kF8Block;
    if (row == 0) PutFloat(panel, slot, of_block);
    bool same = GetFloat(panel, slot) == of_block;
    for (int64_t c = begin; c < end; ++c) {
      const uint8_t* element = first + c * step;
      if (IsNan(Fp8{*element})) return absl::InvalidArgumentError("has a weight that is NaN");
      q[c * kPanelRows + row] = *element;
      // Of a row without strides the ends of a block show whether it has one scale.
      if (dense && c != begin && c + 1 != end) continue;
      same = same && scaled.ScaleOf(element) == (own ? scale : of_block);
    }
    if (!same || !std::isfinite(of_block) || !std::isfinite(scale)) {
      return absl::UnimplementedError(
          "16 rows do not share finite scales for each 128 columns, or one for each row");
    }
  }
  return absl::OkStatus();
}

}  // namespace

int BitsOf(PanelFormat format) {
  return format == PanelFormat::kInt4 || format == PanelFormat::kInt4Zero ? 4 : 8;
}

bool HasZero(PanelFormat format) {
  return format == PanelFormat::kInt4Zero || format == PanelFormat::kInt8Zero;
}

int64_t UnitHead(PanelFormat format) {
  return 2 * kPanelRows + (HasZero(format) ? kPanelRows * BitsOf(format) / 8 : 0);
}

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

Status PackIntegerRow(const MatrixSource& source, int64_t index, PanelLayout layout, int64_t row,
                      std::vector<float>& scratch, uint8_t* panel) {
  const int bits = BitsOf(layout.format);
  const bool has_zero = HasZero(layout.format);
  IntegerRow values;
  if (!source.rounded.empty()) {
    values = source.rounded[index];
  } else if (StoredLayout(source) == layout) {
    LoadIntegers(*source.scaled, source.cols, index, values);
  } else {
    scratch.resize(source.cols);
    LoadRow(source, index, scratch.data());
    RoundToIntegers(scratch.data(), source.cols, layout.group, bits, has_zero, values);
  }
  float factor;
  std::vector<Fp16> halves;
  if (!SplitScales(values.scale, &factor, halves)) {
    return absl::UnimplementedError(
        "the scales of a row are not finite, or differ by more than fp16 and a power of two hold");
  }
  std::memcpy(panel + 4 * row, &factor, sizeof(factor));
  const PanelUnit unit = UnitOf(layout);
  const int64_t group_bytes = kGroup * kPanelRows * bits / 8;
  const uint8_t flip = bits == 8 ? 0x80 : 0;  // integers of 8 bits are signed there
  for (uint8_t& q : values.q) q ^= flip;
  for (int64_t u = 0; u < source.cols / unit.columns; ++u) {
    uint8_t* out = panel + HeaderBytes(layout, source.cols) + u * unit.bytes;
    std::memcpy(out + 2 * row, &halves[u].bits, 2);
    const uint8_t zero = values.zero[u] ^ flip;
    if (has_zero && bits == 4) out[2 * kPanelRows + row / 2] |= zero << (row % 2 * 4);
    if (has_zero && bits == 8) out[2 * kPanelRows + row] = zero;
    for (int64_t g = 0; g < unit.columns / kGroup; ++g) {
      PutGroup(&values.q[u * unit.columns + g * kGroup], bits, row,
               out + UnitHead(layout.format) + g * group_bytes);
    }
  }
  return absl::OkStatus();
}

Status PackF8Row(const MatrixSource& source, int64_t index, int64_t row,
                 std::vector<float>& scratch, uint8_t* panel) {
  uint8_t* q = panel + HeaderBytes(PanelFormat::kF8E4M3, source.cols);
  if (source.dtype == DType::kF8E4M3) return PackF8Stored(source, index, row, panel, q);
  scratch.resize(source.cols);
  LoadRow(source, index, scratch.data());
  std::vector<uint8_t> rounded(source.cols);
  PutFloat(panel, row, RoundToF8(scratch.data(), source.cols, rounded.data()) * 256.0f);
  for (int64_t c = 0; c < source.cols; ++c) q[c * kPanelRows + row] = rounded[c];
  for (int64_t b = 0; b * kF8Block < source.cols; ++b) PutFloat(panel, kPanelRows + b, 1.0f);
  return absl::OkStatus();
}

}  // namespace kvasir::ops
