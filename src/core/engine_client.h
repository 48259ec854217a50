// The one interface between the faces (HTTP, bench, tests) and an engine, in this process or
// another one. Every method is thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/hash128.h"
#include "core/histogram.h"
#include "core/request.h"
#include "core/token_event.h"

namespace kvasir {

// Receives the events of one request. Called on the engine's thread, so it must not block:
// implementations post to their own executor.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void OnEvent(TokenEvent event) = 0;
};

// What a front needs to know of the model that an engine serves.
struct ModelInfo {
  std::string name;
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;  // prompt and output together
  int32_t block_size = 0;     // tokens a KV block
  std::vector<TokenId> eos_ids;
  std::string weights_fingerprint;
  std::string numerics_id;
};

struct EngineStats {
  EngineStats();

  int64_t running = 0;  // sequences in the batch
  int64_t waiting = 0;  // sequences not yet started, or preempted
  int64_t blocks_total = 0;
  int64_t blocks_held = 0;    // referenced by a sequence
  int64_t blocks_cached = 0;  // kept by the prefix index alone
  int64_t steps = 0;
  int64_t prompt_tokens = 0;  // of admitted requests
  int64_t cached_prompt_tokens = 0;
  int64_t computed_prompt_tokens = 0;  // prefill work, recomputation after preemption included
  int64_t generated_tokens = 0;
  int64_t preemptions = 0;
  int64_t forks = 0;  // choices forked from a prefilled prompt, and beams from another
  int64_t copy_on_writes = 0;
  int64_t forced_tokens = 0;   // generated tokens that a constraint forced without a pass
  int64_t drafted_tokens = 0;  // drafts that were computed
  int64_t accepted_drafts = 0;
  int64_t late_guides = 0;     // draws that waited for their constraint
  int64_t prefill_chunks = 0;  // chunks that did not reach the end of their prompt
  Histogram queue_seconds;     // from a request's acceptance to its first pass
  Histogram step_seconds;
  Histogram step_tokens;  // computed in a step
};

class EngineClient {
 public:
  virtual ~EngineClient() = default;

  virtual const ModelInfo& Model() const = 0;

  // Takes a validated request, or refuses it:
  //  ResourceExhausted  the queue is full, or so long that the request would not start in time: the
  //                     message names the seconds to wait before a retry;
  //  InvalidArgument    it can never run here (longer than the context or than all KV blocks);
  //  Unavailable        the engine is draining, has stopped or has failed.
  // After Ok, `sink` gets one event with `finish` for each of the n choices.
  virtual Status Submit(std::shared_ptr<const Request> request,
                        std::shared_ptr<TokenSink> sink) = 0;

  // Ends one choice, or all, at the next step boundary, and frees what they held. Unknown or
  // finished ids are ignored.
  virtual void Cancel(const std::string& request_id, std::optional<int32_t> choice) = 0;

  virtual EngineStats Stats() const = 0;

  // False when the engine has failed, or has made no step for longer than its watchdog allows while
  // it had work.
  virtual bool Healthy() const = 0;
};

}  // namespace kvasir
