// Checkpoint -> CompiledModel -> Plan. The first step builds the architecture's graph, runs the
// passes and packs the weights for the chosen kernels; it takes the time, and a file can hold what
// it makes (plan/plan_file.h). The second plans memory and rotations for the way it will be run.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "compile/calibration.h"
#include "model/checkpoint.h"
#include "plan/plan.h"

namespace kvasir::compile {

enum class Activations : uint8_t {
  kNative,  // int8 for quantised weights, BF16 or float for float ones
  kF32,     // weights expanded to float, all arithmetic in float: a reference, slow and large
  kBf16,    // weights and most activations in BF16: for devices with memory of their own
};

constexpr const char* Name(Activations activations) {
  switch (activations) {
    case Activations::kNative:
      return "int8";
    case Activations::kF32:
      return "f32";
    case Activations::kBf16:
      return "bf16";
  }
  return "?";
}

// What the matrices of products become.
enum class Weights : uint8_t {
  kStored,  // as the checkpoint has them
  kInt8,    // rounded to 8 bits
  kInt4,    // rounded to 4 bits with zero points, but for what has 4 bits already
  kFp8,     // rounded to floats of 8 bits (E4M3), a scale for each row
};

struct CompileOptions {
  const ops::CpuKernels* kernels = nullptr;
  // What the model becomes.
  Activations activations = Activations::kNative;
  Weights weights = Weights::kStored;
  // Columns that share a scale of kInt8 and kInt4, a multiple of 32; 0: of kInt8 a row, of kInt4
  // 128. A matrix whose columns are no multiple has the largest of its halves, from 32, that fits.
  int32_t group_size = 0;
  // For rounding to integers; null: each weight is rounded on its own. Not owned.
  Calibration* calibration = nullptr;
  bool fuse = true;  // false keeps the graph as the architecture built it, for tests
  // How it is run.
  std::optional<ops::KvType> kv_type;  // not set: the compiled model's
  int32_t block_size = 16;             // tokens a KV block, a multiple of 16
  int32_t max_model_len = 0;           // 0: the model's context length
  int32_t max_batch_tokens = 2048;
};

// Told of the nodes that are packed and of those there are, from one thread.
using Progress = std::function<void(int64_t done, int64_t total)>;

// The result keeps the checkpoint alive. Errors name the option, tensor or configuration at fault.
StatusOr<plan::CompiledModel> CompileModel(std::shared_ptr<const model::Checkpoint> checkpoint,
                                           const CompileOptions& options, ThreadPool& pool,
                                           const Progress& progress = {});

// The weights of each product of the compiled model's nodes, and none of the others.
StatusOr<std::vector<std::vector<std::string>>> ProductWeights(const model::Checkpoint& checkpoint,
                                                               const CompileOptions& options);

// FailedPrecondition when the model was compiled for instructions that the kernels do not have.
StatusOr<plan::Plan> MakePlan(plan::CompiledModel model, const CompileOptions& options);

// Both.
StatusOr<plan::Plan> Compile(std::shared_ptr<const model::Checkpoint> checkpoint,
                             const CompileOptions& options, ThreadPool& pool);

// The graph before and after the passes, and what the plan for it needs, for people.
StatusOr<std::string> Explain(const model::Checkpoint& checkpoint, const CompileOptions& options);

}  // namespace kvasir::compile
