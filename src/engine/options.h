// How an engine is set up, and the hooks through which the outside watches it.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <functional>
#include <string>

#include "base/clock.h"
#include "kv/kv_event.h"
#include "runtime/runner.h"

namespace kvasir::engine {

// For tests only: they change no token of any answer.
struct TestHooks {
  // > 0: after every that many steps one running sequence is preempted, in turn.
  int64_t preempt_every_n_steps = 0;
  // Sees each row of raw logits that a token was drawn from. `position` counts the choice's output
  // tokens from 0. Called on the engine's thread.
  std::function<void(const std::string& request_id, int32_t choice, int32_t position,
                     absl::Span<const float> logits)>
      on_logits;
  // As many drafts as there can be are tried, whether they pay or not.
  bool always_draft = false;
  // > 0: every that many draws with a constraint, its mask is taken to be late.
  int64_t late_guide_every_n = 0;
};

struct EngineOptions {
  int32_t max_num_seqs = 64;              // sequences that run at once; >= 1
  int32_t max_num_batched_tokens = 2048;  // tokens of one step; the runner's own cap also holds
  int32_t max_queue = 1024;               // requests accepted and not yet started; >= 1
  // A request that is predicted to wait longer than this, or past its deadline, is refused.
  Duration max_queue_delay = Duration::max();
  bool enable_prefix_caching = true;
  // Tokens that a constraint forces are appended without a pass of their own. Changes no answer.
  bool jump_forward = true;
  // Tokens that may be drafted for a sequence in one pass; 0: none. Changes no answer.
  int32_t max_drafts = 0;
  // A smaller model of the same vocabulary that drafts them; null: prompt lookup does. Not owned;
  // outlives the engine.
  runtime::Runner* draft_runner = nullptr;
  int32_t guide_threads = 2;  // that work out masks, so that a slow one holds up few; >= 1
  // A step with decodes is planned to take at most this, and at most
  // what schedule::kMaxDecodeStretch makes of the decodes' own step.
  Duration itl_target = std::chrono::milliseconds(50);
  // A step without decodes is planned to take at most this, so that a cancel is prompt.
  Duration prefill_step_target = std::chrono::milliseconds(80);
  // An engine that has work and has ended no step for this long is unhealthy.
  Duration watchdog = std::chrono::seconds(60);

  // Called once, on the engine's thread, when the runner has failed for good: every request has
  // ended and no other is taken. May be null.
  std::function<void(const Status& failure)> on_failure;

  // Not owned; may be null, and else outlives the engine.
  kv::KvEventListener* kv_listener = nullptr;

  TestHooks test;
};

}  // namespace kvasir::engine
