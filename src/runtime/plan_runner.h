// Executes a Plan on the CPU: the Runner that serves real models.
//
// Work is cut into tiles that own their outputs, so that neither the batch nor the number of
// threads changes a bit: matrix products by panels and rows, attention by sequence, KV head and
// query rows, and for long contexts of few rows also by super-tiles, whose states are merged in
// order.
#pragma once

#include <memory>
#include <vector>

#include "plan/plan.h"
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

  // The bytes of a block, for tests that compare KV.
  absl::Span<const uint8_t> BlockBytes(BlockId block) const {
    return {kv_.bytes() + block * plan_.kv.block_bytes(),
            static_cast<size_t>(plan_.kv.block_bytes())};
  }

 private:
  struct AttentionItem {
    int32_t sequence = 0;
    int32_t first_row = 0;  // row of the batch
    int32_t rows = 0;
    int32_t kv_head = 0;
    int32_t super_begin = 0;
    int32_t super_end = 0;
    int32_t partial = -1;  // index of its first partial state; -1: merged and written at once
  };
  struct MergeItem {
    int32_t first_row = 0;
    int32_t rows = 0;
    int32_t kv_head = 0;
    int32_t partials = 0;  // how many, in order
    int32_t partial = 0;   // the first
  };

  PlanRunner(plan::Plan plan, int32_t num_blocks, std::unique_ptr<ThreadPool> pool);

  Status CheckBatch(const Batch& batch, const BatchOutput& output) const;
  void SetUpRows(const Batch& batch);
  void SetUpAttention(const Batch& batch);
  void CopyBlocks(const Batch& batch);
  void Execute(const plan::PlanNode& node);

  void Embed(const plan::PlanNode& node);
  void SelectRows(const plan::PlanNode& node);
  void RmsNorm(const plan::PlanNode& node);
  void SwiGlu(const plan::PlanNode& node);
  void Elementwise(const plan::PlanNode& node);
  void Quantize(const plan::PlanNode& node);
  void Matmul(const plan::PlanNode& node);
  void Rope(const plan::PlanNode& node);
  void KvWrite(const plan::PlanNode& node);
  void RopeKvWrite(const plan::PlanNode& node);
  void Attention(const plan::PlanNode& node);
  void Attend(const AttentionItem& item, const graph::Operand& q, int32_t layer, float* out,
              int32_t width, int thread);
  void MergePartials(const MergeItem& item, float* out, int32_t width);

  // Runs body(row, thread) over all rows of the kind, `cost` being roughly the elements of a row.
  template <typename Body>
  void ForRows(graph::Rows kind, int64_t cost, const Body& body);

  int64_t RowCount(graph::Rows kind) const;
  float* Floats(graph::ValueId value);
  const float* Row(const graph::Operand& operand, int64_t row);
  ops::QuantizedRows QuantizedValue(graph::ValueId value);
  void WriteRow(graph::ValueId value, int64_t row, const float* x);
  float* Scratch(int thread) { return scratch_.data() + thread * scratch_floats_; }

  void RotateHead(const float* x, int64_t position, float scale, float* out) const;
  void StoreKv(int64_t row, int32_t layer, int32_t kv_head, const float* k, const float* v);
  uint8_t* HeadBytes(BlockId block, int32_t layer, int32_t kv_head);

  plan::Plan plan_;
  int32_t num_blocks_;
  std::unique_ptr<ThreadPool> pool_;
  device::Buffer arena_;
  device::Buffer kv_;
  std::vector<float> scratch_;  // per thread
  int64_t scratch_floats_ = 0;
  int32_t attend_rows_ = 0;  // most query rows (tokens x heads of a group) of an item

  // Of the current batch.
  const Batch* batch_ = nullptr;
  std::vector<TokenId> tokens_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> row_sequence_;
  std::vector<int32_t> output_rows_;  // those that give logits, then those that give hidden states
  int64_t logit_rows_ = 0;            // how many of them give logits
  std::vector<AttentionItem> attention_items_;
  std::vector<MergeItem> merge_items_;
  std::vector<float> partial_states_;  // [partial][attend_rows](maximum, sum, values[head_dim])
  float* logits_ = nullptr;
  float* hidden_ = nullptr;
};

}  // namespace kvasir::runtime
