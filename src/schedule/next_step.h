// The scheduling policy: which sequences compute how many tokens in the next step.
#pragma once

#include "schedule/step_plan.h"

namespace kvasir::schedule {

// A chunk ends at a multiple of this, unless it ends its prompt; also the least that a prompt
// advances in a step however little time there is, so that none starves.
inline constexpr int32_t kChunkTokens = 4;

// With decodes, a step takes at most this many times as long as the decodes alone would, should it
// overrun its prediction as the worst ones of late did: for gaps between tokens of about four usual
// ones at most.
inline constexpr double kMaxDecodeStretch = 2.8;

// Fills `plan` (reused between steps) from the state alone:
//  1. every decode, in rank order; when blocks run out, the sequence of the last rank is preempted,
//     be it the one that needs them; drafts take what is left, and nobody's blocks;
//  2. prefill chunks, running and waiting prompts together in rank order, while the predicted time
//     of the step stays within the budget. A waiting sequence starts when its whole prompt fits
//     beside what runs; one whose next block is being computed by another lets that one go first,
//     in its own place, and waits.
// When no sequence can advance, the last in rank of those that yield is preempted, and the next
// step goes on from there; if none yields the last in rank is, so that the first always advances. A
// plan computes nothing only when it preempts a sequence that yields, or when a running one stalls.
// REQUIRES: each sequence fits into the pool alone.
void NextStep(const State& state, const Budget& budget, StepPlan* plan);

}  // namespace kvasir::schedule
