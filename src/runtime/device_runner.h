// Executes a Plan on a device with memory of its own, through the kernels of ops/device_kernels.h.
//
// A step copies in what its rows are, gives the orders of all nodes, and waits once, for what comes
// back. Steps of decodes alone are padded to a number of rows that was recorded at the start, so
// that one order stands for all of their kernels.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "ops/device_kernels.h"
#include "plan/plan.h"
#include "runtime/batch_rows.h"
#include "runtime/runner.h"

namespace kvasir::runtime {

struct DeviceOptions {
  int32_t num_blocks = 0;      // 0: what `memory_share` leaves room for
  double memory_share = 0.92;  // of the memory that is free at the start, for everything
  int32_t max_recorded_rows = 256;
};

// A KV block of the device, and its place in memory of the host.
struct HostBlock {
  BlockId block = -1;
  uint8_t* host = nullptr;
};

class DeviceRunner final : public Runner {
 public:
  // Copies the weights in, which takes the time, and allocates all that a step needs. Unimplemented
  // names the op or shape that the device does not do; ResourceExhausted what did not fit.
  static StatusOr<std::unique_ptr<DeviceRunner>> Create(plan::Plan plan, DeviceOptions options,
                                                        std::unique_ptr<ThreadPool> pool,
                                                        ops::Accelerator accelerator);

  int32_t vocab_size() const override { return plan_.vocab; }
  int32_t hidden_size() const override { return plan_.hidden; }
  int32_t block_size() const override { return plan_.kv.block_size; }
  int32_t num_blocks() const override { return num_blocks_; }
  int32_t max_batch_tokens() const override { return plan_.max_batch_tokens; }
  bool draws() const override { return true; }
  ThreadPool& pool() override { return *pool_; }

  Status failure() const override { return device_.failure(); }
  Status Run(const Batch& batch, const BatchOutput& output) override;

  // KV blocks between the device and memory of the host, beside what runs: a copy each, out of or
  // into block_bytes() of memory that device() gave. What batches before wrote is in a copy out.
  // Until the transfer has ended no batch may write its blocks, nor, of copies in, read them.
  int64_t block_bytes() const { return plan_.kv.block_bytes(); }
  device::Device& device() { return device_; }
  device::Transfer CopyOut(absl::Span<const HostBlock> blocks);
  device::Transfer CopyIn(absl::Span<const HostBlock> blocks);

 private:
  // The rows of a step, and where what describes them lies in the input memory, in int32s.
  struct Shape {
    int64_t rows = 0;
    int64_t logit_rows = 0;
    int64_t output_rows = 0;  // those of logits, then those of hidden states
    int64_t tiles = 0;
    int64_t single_tiles = 0;
    int64_t sequences = 0;

    int64_t tokens() const { return 0; }
    int64_t positions() const { return rows; }
    int64_t sequence_of() const { return 2 * rows; }
    int64_t outputs() const { return 3 * rows; }
    int64_t tile_at() const { return outputs() + output_rows; }
    int64_t table_begins() const { return tile_at() + 2 * tiles; }
    int64_t tables() const { return table_begins() + sequences; }
  };

  DeviceRunner(plan::Plan plan, DeviceOptions options, std::unique_ptr<ThreadPool> pool,
               ops::Accelerator accelerator);

  // At the start.
  Status CheckPlan() const;
  Status CheckNode(const plan::PlanNode& node) const;
  Status Upload();
  Status UploadRows(int64_t row_bytes, int64_t rows, uint8_t* to,
                    const std::function<void(int64_t row, uint8_t* out)>& load);
  Status UploadFloats(absl::Span<const float> values, device::DeviceMemory& out);
  Status AllocateStep();
  Status AllocateBlocks(int64_t free_at_start);
  Status RecordDecodes();

  // Of a step.
  Status EnsureOutputs(int64_t logit_rows, int64_t hidden_rows);
  Status EnsureInput(int64_t blocks);
  Shape ShapeOf(const Batch& batch) const;
  Shape PaddedDecodes(int64_t rows) const;
  int64_t RecordedRows(const Batch& batch) const;  // 0: none fit
  void CopyInputs(const Batch& batch);
  void FillPadding();
  void Execute();
  void Draw(const Batch& batch);
  Status TakeOutputs(const Batch& batch, const BatchOutput& output);

  void Execute(const plan::PlanNode& node);
  void Norm(const plan::PlanNode& node);
  void Matmul(const plan::PlanNode& node);
  void RopeKvWrite(const plan::PlanNode& node);
  void Attention(const plan::PlanNode& node);

  int64_t RowCount(graph::ValueId value) const;
  ops::DeviceMatrix Matrix(const graph::Operand& operand) const;
  ops::DeviceMatrix Output(const plan::PlanNode& node) const;
  ops::DeviceKv KvOf(int32_t layer) const;
  uint8_t* Block(BlockId block) const;
  int32_t* Input(int64_t at) const { return input_.as<int32_t>() + at; }

  const plan::Plan plan_;
  const DeviceOptions options_;
  const std::unique_ptr<ThreadPool> pool_;
  const ops::Accelerator accelerator_;
  device::Device& device_;
  ops::DeviceKernels& kernels_;
  const int32_t group_;  // query heads of a KV head
  int32_t num_blocks_ = 0;

  // On the device.
  std::vector<device::DeviceMemory> matrices_;
  std::vector<device::DeviceMemory> vectors_;
  struct Rotation {
    device::DeviceMemory cosines, sines;
  };
  std::vector<Rotation> rotations_;
  device::DeviceMemory embedding_;  // [vocab][hidden] BF16
  device::DeviceMemory arena_;
  device::DeviceMemory blocks_;
  device::DeviceMemory input_;   // as Shape says
  device::DeviceMemory logits_;  // [rows][vocab]
  device::DeviceMemory hidden_;  // [rows][hidden]
  device::DeviceMemory drawn_;   // [rows] tokens
  device::DeviceMemory draws_;   // [rows] how they are chosen

  // On the host, quick to copy.
  device::DeviceMemory staging_;  // of weights, at the start
  device::DeviceMemory host_input_;
  device::DeviceMemory host_logits_;
  device::DeviceMemory host_hidden_;
  device::DeviceMemory host_drawn_;
  device::DeviceMemory host_draws_;

  std::vector<device::Piece> pieces_;  // of a transfer

  BatchRows rows_;
  Shape shape_;                            // of the step under way
  std::vector<ops::AttentionTile> tiles_;  // of it
  ops::DeviceBatch device_batch_;
  std::map<int64_t, std::unique_ptr<device::Recording>> recordings_;  // by rows
};

}  // namespace kvasir::runtime
