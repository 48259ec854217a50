// A worker in virtual time: a prefix cache kept by the engine's own classes, a prefill queue served
// at the speed of a step-time model, and decodes.
//
// Its rules make hits comparable with any other replay of a trace: a request's blocks are in the
// cache at once when it comes, since whoever needs them next can wait for them; no block is pinned
// for longer; output takes no blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "kv/block_pool.h"
#include "kv/prefix_index.h"
#include "router/placement.h"
#include "sim/trace.h"

namespace kvasir::sim {

// What the wire calls BlockStored and BlockRemoved: a run of blocks that came or went together.
struct BlockEvent {
  bool stored = false;  // else removed
  std::vector<Hash128> blocks;
};

// One thread at a time. Times never go back.
class SimWorker {
 public:
  SimWorker(int32_t blocks, int32_t block_tokens, const perf::StepCoefficients& times);

  struct Served {
    int32_t cached_blocks = 0;
    double ttft = 0;             // seconds, queue and prefill
    double prefill_seconds = 0;  // alone
  };
  Served Serve(const TraceRequest& request, TimePoint now);

  // As it reports itself.
  router::WorkerState State(TimePoint time);

  // What has changed in the cache since the last call: at most one event of each kind.
  std::vector<BlockEvent> TakeEvents();

  int32_t cached_blocks() const { return index_.Size(); }
  Status CheckIntegrity() const;

 private:
  // An accepted request; it decodes from `first_token` to `end`.
  struct Accepted {
    double first_token = 0, end = 0;
    int64_t context = 0;
    int32_t blocks = 0;
  };
  struct Recorder final : kv::KvEventListener {
    void OnStored(const kv::BlockStored& event) override { stored.push_back(event.hash); }
    void OnRemoved(const kv::BlockRemoved& event) override { removed.push_back(event.hash); }
    std::vector<Hash128> stored, removed;
  };

  void Advance(double now);
  int32_t Cache(const std::vector<Hash128>& blocks);

  const int32_t block_tokens_;
  const perf::StepCoefficients times_;
  Recorder recorder_;
  kv::BlockPool pool_;
  kv::PrefixIndex index_;
  std::vector<Accepted> accepted_;
  // Seconds, as doubles: no trace makes them overflow.
  double busy_until_ = 0;
  double advanced_ = 0;
  double load_ = 0;
};

}  // namespace kvasir::sim
