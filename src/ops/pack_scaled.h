// Packing of single rows into the panels that have a header of factors (panel_format.h). For Pack.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "ops/packing.h"

namespace kvasir::ops {

// Of a format with groups: bits of an integer, whether there are zero points, and the bytes before
// the groups of a unit.
int BitsOf(PanelFormat format);
bool HasZero(PanelFormat format);
int64_t UnitHead(PanelFormat format);

// Writes the 32 integers of one row's group into the group's area.
void PutGroup(const uint8_t* q, int bits, int64_t row, uint8_t* group);

// Pack row `index` of the source as row `row` of a panel of zeros, rounding where its stored layout
// is another. Unimplemented or InvalidArgument for scales or weights that the panel cannot hold.
Status PackIntegerRow(const MatrixSource& source, int64_t index, PanelLayout layout, int64_t row,
                      std::vector<float>& scratch, uint8_t* panel);
Status PackF8Row(const MatrixSource& source, int64_t index, int64_t row,
                 std::vector<float>& scratch, uint8_t* panel);

}  // namespace kvasir::ops
