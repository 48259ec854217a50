// The layout of weight matrices that the kernels read. Light on includes, because the kernels' own
// translation units are compiled for other instruction sets.
//
// A matrix [rows, cols] is cut into panels of 16 rows. Within a panel the columns follow each
// other, so that a kernel streams memory in order and holds the 16 outputs in the lanes of its
// vectors: no output is ever summed across lanes, which is what makes every kernel family, batch
// size and thread count add in the same order.
//
// Float panels: [cols][16] elements; BF16 for the dot-product instructions: [cols / 2][16][2]; BF16
// by rows, for devices with memory of their own: [16][cols]. Of 8-bit floats a header comes first:
// fp32 factors of the 16 rows, then one fp32 scale for every 128 columns, padded to 64 bytes. A
// weight is factor x scale x a 256th of the stored value.
//
// Quantised panels: groups of 32 columns, each as the scales of the 16 rows followed by their
// integers. Step s of a group holds columns 4s..4s+3 as [16 rows][4 columns]; of 4-bit values
// byte i holds step p in the low and step p + 4 in the high nibble. The fifth bit of step s is bit
// s of a byte, the fifth and sixth of 6-bit values are bits 2(s % 4) of byte array s / 4. No
// format is rounded a second time; K-quants keep their two levels of scales, each of a byte.
//
// kInt4 to kInt8Zero have scales of as many columns as the layout says: a header of fp32 factors of
// the 16 rows, then units of so many columns: fp16 scales, zero points (of 4 bits two rows a byte,
// of 8 bits int8), groups. A weight is factor x scale x (q - zero); without zero points zero is 8
// of 4 bits and 0 of 8, which are signed.
#pragma once

#include <cstdint>

namespace kvasir::ops {

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kGroup = 32;     // columns that share a scale of activations
inline constexpr int64_t kF8Block = 128;  // columns that share a scale of 8-bit floats

enum class PanelFormat : uint8_t {
  kF32,
  kF16,
  kBf16,
  kBf16Pairs,
  kBf16Rows,
  kF8E4M3,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIq4Nl,
  kMxfp4,
  kInt4,
  kInt4Zero,
  kInt8,
  kInt8Zero,
};

// Multiplied by activations of int8.
constexpr bool IsQuantized(PanelFormat format) { return format >= PanelFormat::kQ4_0; }
// Has scales of as many columns as the layout says.
constexpr bool HasGroups(PanelFormat format) { return format >= PanelFormat::kInt4; }
const char* Name(PanelFormat format);

struct PanelLayout {
  PanelFormat format = PanelFormat::kF32;
  int64_t group = 0;  // columns that share a scale, a multiple of 32; 0 where the format says it

  PanelLayout() = default;
  PanelLayout(PanelFormat f, int64_t columns = 0) : format(f), group(columns) {}
  friend bool operator==(const PanelLayout&, const PanelLayout&) = default;
};

// Byte sizes of one panel's unit of `columns` columns.
struct PanelUnit {
  int64_t columns;
  int64_t bytes;
};
PanelUnit UnitOf(PanelLayout layout);
// Before the units.
int64_t HeaderBytes(PanelLayout layout, int64_t cols);
// Of a panel of `cols` columns, a multiple of the unit's.
int64_t PanelBytes(PanelLayout layout, int64_t cols);

// A packed matrix as the kernels see it.
struct PanelView {
  PanelFormat format = PanelFormat::kF32;
  int64_t group = 0;  // as in PanelLayout
  int64_t rows = 0;   // real ones; the last panel is padded with zeros
  int64_t cols = 0;   // a multiple of the unit's columns
  int64_t panels = 0;
  int64_t panel_bytes = 0;
  const uint8_t* data = nullptr;

  const uint8_t* panel(int64_t i) const { return data + i * panel_bytes; }
};

}  // namespace kvasir::ops
