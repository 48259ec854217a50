// Packing of stored weight matrices into panels (panel_format.h).
#pragma once

#include <absl/types/span.h>

#include <cstdint>

#include "base/dtype.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "device/buffer.h"
#include "ops/panel_format.h"
#include "ops/scaled_matrix.h"
#include "ops/stored_blocks.h"

namespace kvasir::ops {

// The panel format that keeps a stored type as it is; of integers with scales that without zero
// points.
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
  // Of kF8E4M3, kInt4, kInt8 and of kMxfp4 in tensors of its own: where scales and, of all but
  // kF8E4M3, integers are.
  const ScaledMatrix* scaled = nullptr;
  // Of float types, elements from one row and column to the next; both 0: dense.
  int64_t row_stride = 0;
  int64_t col_stride = 0;
  // Of each `stride` rows those of [begin, begin + width) are stored for the interleaved rotation
  // and are reordered for the half-split one (row 2i of them goes to i, row 2i + 1 to
  // i + width / 2). Width 0: none.
  struct Interleaved {
    int64_t stride = 0;
    int64_t begin = 0;
    int64_t width = 0;
  } interleaved;
  // The rows as they were rounded to the integers of a layout with groups; empty: each is rounded
  // on its own where the layout wants it.
  absl::Span<const IntegerRow> rounded = {};
};

// The panels that keep the source as it is.
PanelLayout StoredLayout(const MatrixSource& source);

// Packs the stacked sources, which have the same cols, a multiple of the storage block, and the
// same order of columns. `layout` is the StoredLayout of every source, or of a float format into
// which each source is expanded, or of kF8E4M3 or a format with groups, to which it is rounded.
// Columns of what is rounded lie in their own order. Unimplemented for scales that panels cannot
// hold, InvalidArgument for weights of E4M3 and scales of MXFP4 that are NaN.
StatusOr<PackedMatrix> Pack(absl::Span<const MatrixSource> sources, PanelLayout layout,
                            ThreadPool& pool);

// Expands row `index`, as stored, to `source.cols` floats.
void LoadRow(const MatrixSource& source, int64_t index, float* out);
// The stored row that becomes row `index`.
int64_t StoredRow(const MatrixSource::Interleaved& interleaved, int64_t index);

}  // namespace kvasir::ops
