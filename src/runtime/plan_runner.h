// Executes a Plan on the CPU: the Runner that serves real models.
//
// Work is cut into tiles that own their outputs, so that neither the batch nor the number of
// threads changes a bit: matrix products by panels and rows, attention as paged_attention.h says,
// the rest by rows.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "plan/plan.h"
#include "runtime/batch_rows.h"
#include "runtime/expert_rows.h"
#include "runtime/paged_attention.h"
#include "runtime/runner.h"

namespace kvasir::runtime {

class PlanRunner final : public Runner {
 public:
  // Takes the plan and allocates the arena and `num_blocks` KV blocks. ResourceExhausted names
  // what did not fit.
  static StatusOr<std::unique_ptr<PlanRunner>> Create(plan::Plan plan, int32_t num_blocks,
                                                      std::unique_ptr<ThreadPool> pool);

  int32_t vocab_size() const override { return plan_.vocab; }
  int32_t hidden_size() const override { return plan_.hidden; }
  int32_t block_size() const override { return plan_.kv.block_size; }
  int32_t num_blocks() const override { return num_blocks_; }
  int32_t max_batch_tokens() const override { return plan_.max_batch_tokens; }
  ThreadPool& pool() override { return *pool_; }
  const plan::Plan& plan() const { return plan_; }

  Status Run(const Batch& batch, const BatchOutput& output) override;

  // Shows what each product (Op::kMatmul) is about to read: `count` rows of floats, rounded ones
  // too, and the product's place in plan().nodes. For calibration.
  using ProductObserver = std::function<void(size_t node, const float* rows, int64_t count)>;
  void ObserveProducts(ProductObserver observer) { observer_ = std::move(observer); }

  // The bytes of a block, for tests that compare KV.
  absl::Span<const uint8_t> BlockBytes(BlockId block) const {
    return attention_->BlockBytes(block);
  }

 private:
  // Rows [begin, end) of a product, which take the `part`-th of its matrices.
  struct RowRange {
    int32_t part;
    int64_t begin;
    int64_t end;
  };

  PlanRunner(plan::Plan plan, int32_t num_blocks, std::unique_ptr<ThreadPool> pool);

  void Execute(const plan::PlanNode& node);

  void Embed(const plan::PlanNode& node);
  void SelectRows(const plan::PlanNode& node);
  void RmsNorm(const plan::PlanNode& node);
  void Gated(const plan::PlanNode& node);
  void Elementwise(const plan::PlanNode& node);
  void Quantize(const plan::PlanNode& node);
  void Matmul(const plan::PlanNode& node);
  void ShowInput(const plan::PlanNode& node, int64_t rows);
  void GroupedMatmul(const plan::PlanNode& node);
  void Rope(const plan::PlanNode& node);
  void KvWrite(const plan::PlanNode& node);
  void RopeKvWrite(const plan::PlanNode& node);
  void Attention(const plan::PlanNode& node);
  void SplitHeads(const plan::PlanNode& node);
  void JoinHeads(const plan::PlanNode& node);
  void Route(const plan::PlanNode& node);
  void Dispatch(const plan::PlanNode& node);
  void Combine(const plan::PlanNode& node);

  // y = x W^T over the ranges, cut into tiles of rows and panels.
  void Multiply(const plan::PlanNode& node, absl::Span<const RowRange> ranges);
  // Runs body(row, thread) over all rows of a value, `cost` being roughly the elements of a row.
  template <typename Body>
  void ForRows(graph::ValueId value, int64_t cost, const Body& body);

  int64_t RowCount(graph::ValueId value) const;
  float* Floats(graph::ValueId value);
  const float* Row(const graph::Operand& operand, int64_t row);
  float* OutputRow(const plan::PlanNode& node, int64_t row);
  ops::QuantizedRows QuantizedValue(graph::ValueId value);
  void WriteRow(graph::ValueId value, int64_t row, const float* x);
  float* Scratch(int thread) { return scratch_.data() + thread * scratch_floats_; }
  void RotateHead(const plan::PlanNode& node, const float* x, int64_t position, float scale,
                  float* out) const;

  plan::Plan plan_;
  int32_t num_blocks_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<PagedAttention> attention_;
  device::Buffer arena_;
  std::vector<float> scratch_;  // per thread, a row each
  int64_t scratch_floats_ = 0;

  ProductObserver observer_;

  // Of the current batch.
  BatchRows rows_;
  ExpertRows expert_rows_;  // of the last layer with experts
  float* logits_ = nullptr;
  float* hidden_ = nullptr;
};

}  // namespace kvasir::runtime
