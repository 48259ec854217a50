// What all keys of a head have in common.
//
// Some models (Qwen 2 above all) give their keys a bias that is a hundred times larger than what a
// token adds, in columns that the rotation turns so slowly that it stays where it is. Rounded to 8
// bits such keys keep little else. But what is subtracted from all keys alike shifts all scores of
// a query alike, and a softmax does not see it (as in Zhang et al., SageAttention, which subtracts
// a mean; a bias depends on no token, so neither does what is stored of one).
#pragma once

#include <vector>

#include "plan/plan.h"

namespace kvasir::compile {

// By layer what to subtract from the rotated keys, [kv_heads x k_dim]: the mean of the rotated bias
// over the first positions. Empty for a layer without such a bias, and for one whose scores are
// capped or compared with a sink, where a shift would change the result. Rotations that depend on
// the length are those for `max_model_len`.
std::vector<std::vector<float>> KeyCenters(const plan::CompiledModel& model, int32_t max_model_len);

}  // namespace kvasir::compile
