// The KV blocks of a plan and attention over them.
//
// Work is cut by sequence, KV head and query rows, and for long contexts of few rows also by
// super-tiles, whose states are merged in order: neither the batch nor the number of threads
// changes a bit.
#pragma once

#include <memory>
#include <vector>

#include "plan/plan.h"
#include "runtime/batch_rows.h"
#include "runtime/runner.h"

namespace kvasir::runtime {

// One caller at a time; StoreK and StoreV may run on several threads for different rows.
class PagedAttention {
 public:
  // ResourceExhausted when the blocks do not fit; Unimplemented when a KV head has too many
  // query heads. `plan` outlives the result.
  static StatusOr<std::unique_ptr<PagedAttention>> Create(const plan::Plan& plan,
                                                          int32_t num_blocks, ThreadPool& pool);

  // Does the batch's copies and cuts its work; `batch` and `rows` stay until the next call.
  void SetBatch(const Batch& batch, const BatchRows& rows);

  // Writes a row's K or V. Before it is rounded to INT8, K is spread, and so are the queries that
  // meet it (Ashkboos et al., QuaRot): the products stay the same, and a column that is large does
  // not take the others' precision. (FP8 keeps small beside large as it is.) Where V is the
  // beginning of K, `k` is the columns behind it.
  void StoreK(int64_t row, int32_t layer, int32_t kv_head, const float* k);
  void StoreV(int64_t row, int32_t layer, int32_t kv_head, const float* v);

  // out[row][heads x v_dim] = what the queries q[row][heads x k_dim] attend to, by the node's
  // layer, window, cap and sinks. The strides are in floats.
  void Run(const plan::PlanNode& node, const float* q, int64_t q_stride, float* out,
           int64_t out_stride);

  absl::Span<const uint8_t> BlockBytes(BlockId block) const {
    const int64_t bytes = plan_.kv.block_bytes();
    return {blocks_.bytes() + block * bytes, static_cast<size_t>(bytes)};
  }

 private:
  // Some query tokens of a sequence for one KV head.
  struct Item {
    int32_t sequence = 0;
    int32_t first_row = 0;  // row of the batch
    int32_t rows = 0;
    int32_t kv_head = 0;
    int32_t super_begin = 0;
    int32_t super_end = 0;
    int32_t partial = -1;  // index of its state; -1: merged and written at once
  };
  // The states of one item's super-tiles.
  struct MergeItem {
    Item item;
    int32_t partials = 0;  // how many, in order
    int32_t partial = 0;   // the first
  };
  // Of the rows of an item: maximum[rows], sum[rows], values[rows][v_dim].
  struct State {
    float* maximum;
    float* sum;
    float* values;
  };
  // Where the queries of a node come from and what they make goes.
  struct Target {
    const plan::PlanNode& node;
    const float* q;
    int64_t q_stride;
    float* out;
    int64_t out_stride;
  };

  PagedAttention(const plan::Plan& plan, device::Buffer blocks, ThreadPool& pool);

  void CutWork(const Batch& batch);
  void Attend(const Target& target, const Item& item, int thread);
  void FindUnits(const Item& item, int32_t layer, int32_t last, ops::AttendArgs& args);
  void MergePartials(const Target& target, const MergeItem& merge, int thread);
  void Merge(const State& from, int32_t rows, const State& into) const;
  void Finish(const Target& target, const Item& item, const State& state) const;
  State StateAt(float* base) const;
  void Clear(const State& state) const;
  const float* Spread(const float* q, float* out) const;
  float StoreKeyColumns(int64_t row, int32_t layer, int32_t kv_head, int32_t column, int32_t width,
                        const float* k);
  void StoreScale(int64_t row, int32_t layer, int32_t kv_head, int64_t offset, float scale);
  uint8_t* HeadBytes(BlockId block, int32_t layer, int32_t kv_head);
  uint8_t* RowBytes(int64_t row, int32_t layer, int32_t kv_head);

  const plan::Plan& plan_;
  ThreadPool& pool_;
  device::Buffer blocks_;
  int32_t group_;        // query heads of a KV head
  int32_t item_rows_;    // most query rows (tokens x heads of a group) of an item
  int64_t state_size_;   // floats of a State
  int32_t spread_from_;  // first of the columns of K that are spread; k_dim: none
  int64_t scratch_floats_;
  std::vector<float> scratch_;         // per thread: tiles of K and V, two states
  std::vector<float> partial_states_;  // [partial][state_size_]

  const Batch* batch_ = nullptr;
  const BatchRows* rows_ = nullptr;
  std::vector<Item> items_;
  std::vector<MergeItem> merges_;
};

}  // namespace kvasir::runtime
