// What every runner expects of a batch.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "core/batch.h"
#include "plan/plan.h"

namespace kvasir::runtime {

// Internal, naming the first contradiction: a block, a token or a row that does not exist, a page
// table that is too short, an output of another size.
Status CheckBatch(const plan::Plan& plan, int32_t num_blocks, const Batch& batch,
                  const BatchOutput& output);

}  // namespace kvasir::runtime
