// What must hold of a compiled model for a runner to execute it without looking: for one that came
// out of a file.
#pragma once

#include "plan/plan.h"

namespace kvasir::plan {

// InvalidArgument names the node, matrix or field at fault.
Status CheckModel(const CompiledModel& model);

}  // namespace kvasir::plan
