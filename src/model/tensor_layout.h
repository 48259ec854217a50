// How the tensors of files become those that graphs name: one matrix, one name. Stacked experts and
// fused projections are taken apart into views of the same bytes.
#pragma once

#include <string>

#include "base/status.h"
#include "model/architecture.h"
#include "model/checkpoint.h"

namespace kvasir::model {

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"; unknown names stay.
std::string CanonicalName(const Architecture& architecture, std::string_view hugging_face);

// Adds the views of what is stacked or fused to the checkpoint's tensors, in place of it, and marks
// rows that lie for the interleaved rotation. An error names the tensor whose shape does not fit.
Status SplitTensors(Checkpoint& checkpoint);

}  // namespace kvasir::model
