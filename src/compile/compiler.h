// Checkpoint -> Plan: builds the architecture's graph, runs the passes, packs the weights for the
// chosen kernels and plans memory.
#pragma once

#include <memory>

#include "base/status.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "plan/plan.h"

namespace kvasir::compile {

enum class Activations : uint8_t {
  kNative,  // int8 for quantised weights, BF16 or float for float ones
  kF32,     // weights expanded to float, all arithmetic in float: a reference, slow and large
};

struct CompileOptions {
  const ops::CpuKernels* kernels = nullptr;
  Activations activations = Activations::kNative;
  DType kv_dtype = DType::kBf16;  // or kF32
  int32_t block_size = 16;        // tokens a KV block, a multiple of 16
  int32_t max_model_len = 0;      // 0: the checkpoint's context length
  int32_t max_batch_tokens = 2048;
  bool fuse = true;  // false keeps the graph as the architecture built it, for tests
};

// The plan keeps the checkpoint alive. Errors name the option, tensor or configuration at fault.
StatusOr<plan::Plan> Compile(std::shared_ptr<const model::Checkpoint> checkpoint,
                             const CompileOptions& options, ThreadPool& pool);

}  // namespace kvasir::compile
