// Packing of stored weight matrices into panels (panel_format.h).
#pragma once

#include <absl/types/span.h>

#include <cstdint>

#include "base/dtype.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "device/buffer.h"
#include "ops/panel_format.h"

namespace kvasir::ops {

// The panel format that keeps a stored type as it is.
PanelFormat PanelFormatOf(DType dtype);

// Owns the memory of its panels.
struct PackedMatrix {
  PanelView view;
  device::Buffer data;
};

// One row-major source of rows; a packed matrix may stack several (fused QKV).
struct MatrixSource {
  DType dtype;
  int64_t rows;
  int64_t cols;
  const uint8_t* data;
  // > 0: rows come in heads of this many, stored for the interleaved rotation, and are reordered
  // for the half-split one (row 2i goes to i, row 2i + 1 to i + head / 2).
  int64_t deinterleave_head = 0;
};

// Packs the stacked sources, which have the same cols, a multiple of the storage block. `format`
// is PanelFormatOf(every source's dtype), or a float format into which each source is expanded.
StatusOr<PackedMatrix> Pack(absl::Span<const MatrixSource> sources, PanelFormat format,
                            ThreadPool& pool);

// Expands `cols` elements of one stored row to float.
void DequantizeRow(DType dtype, const uint8_t* row, int64_t cols, float* out);

}  // namespace kvasir::ops
