// Workers and a request for tests of placement.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "router/placement.h"

namespace kvasir::router {

inline constexpr int32_t kBlock = 16;

// 10 ms a step and 1 ms a prefill token; 10 ms a step and 1 ms a decode.
inline constexpr perf::StepCoefficients kTimes = {.decode = {0.01, 0, 0.001},
                                                  .prefill = {0.01, 0.001, 0}};

// Idle workers, a prompt of ten blocks, and least time without weight or chance.
class PlacementTest : public testing::Test {
 protected:
  explicit PlacementTest(int32_t workers = 4) : workers_(workers), cached_(workers, 0) {
    for (WorkerState& worker : workers_) {
      worker.up = true;
      worker.times = kTimes;
      worker.kv_blocks = 1000;
      worker.max_requests = 100;
    }
    options_.weight = 1;
    options_.near = 0;
  }

  RouteDecision Decide() {
    request_.cached = cached_;
    request_.fetchable = fetchable_;
    return Place(workers_, request_, options_);
  }
  int32_t Chosen() { return Decide().worker; }

  std::vector<WorkerState> workers_;
  std::vector<int32_t> cached_, fetchable_;
  PlacementRequest request_{.prompt_tokens = 160, .block_tokens = kBlock, .expected_output = 10};
  PlacementOptions options_;
};

}  // namespace kvasir::router
