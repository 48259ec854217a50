#include "runtime/paged_attention.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include <absl/container/inlined_vector.h>
#include <fmt/format.h>

namespace kvasir::runtime {
namespace {

// Query rows of an item: enough to share a tile's conversion, few enough for their state to stay
// in the second-level cache.
constexpr int32_t kQueryRows = 96;
// Most query heads that share a KV head.
constexpr int32_t kMaxGroup = 256;
// A decode over more super-tiles than this is split over threads.
constexpr int32_t kSplitSuperTiles = 2;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

int32_t FirstSeen(int32_t position, int32_t window) {
  return window > 0 ? std::max(0, position - window + 1) : 0;
}

}  // namespace

StatusOr<std::unique_ptr<PagedAttention>> PagedAttention::Create(const plan::Plan& plan,
                                                                 int32_t num_blocks,
                                                                 ThreadPool& pool) {
  if (plan.heads / plan.kv.kv_heads > kMaxGroup) {
    return absl::UnimplementedError(fmt::format("{} query heads share a KV head: {} can",
                                                plan.heads / plan.kv.kv_heads, kMaxGroup));
  }
  auto blocks = device::Buffer::Allocate(static_cast<size_t>(num_blocks) * plan.kv.block_bytes());
  if (!blocks.ok()) {
    return absl::ResourceExhaustedError(
        fmt::format("kv-cache-memory: {}", blocks.status().ToString()));
  }
  return std::unique_ptr<PagedAttention>(new PagedAttention(plan, *std::move(blocks), pool));
}

PagedAttention::PagedAttention(const plan::Plan& plan, device::Buffer blocks, ThreadPool& pool)
    : plan_(plan),
      pool_(pool),
      blocks_(std::move(blocks)),
      group_(plan.heads / plan.kv.kv_heads),
      item_rows_(std::max(group_, kQueryRows / group_ * group_)),
      state_size_(item_rows_ * (int64_t{plan.kv.v_dim} + 2)),
      spread_from_(plan.kv.type != ops::KvType::kInt8 ? plan.kv.k_dim
                   : plan.kv.v_in_k                   ? plan.kv.v_dim
                                                      : 0),
      scratch_floats_(ops::AttendScratch(plan.kv.k_dim, plan.kv.v_dim) + 2 * state_size_ +
                      int64_t{item_rows_} * plan.kv.k_dim + 64) {
  scratch_.resize(scratch_floats_ * pool_.threads());
}

void PagedAttention::SetBatch(const Batch& batch, const BatchRows& rows) {
  batch_ = &batch;
  rows_ = &rows;
  const int64_t bytes = plan_.kv.block_bytes();
  for (const BlockCopy& copy : batch.copies) {
    std::memcpy(blocks_.bytes() + copy.to * bytes, blocks_.bytes() + copy.from * bytes, bytes);
  }
  CutWork(batch);
}

void PagedAttention::CutWork(const Batch& batch) {
  items_.clear();
  merges_.clear();
  const int32_t tokens_per_item = item_rows_ / group_;
  int32_t partials = 0;
  int32_t first_row = 0;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const BatchSequence& sequence = batch.sequences[s];
    const int32_t count = static_cast<int32_t>(sequence.tokens.size());
    for (int32_t begin = 0; begin < count; begin += tokens_per_item) {
      const int32_t rows = std::min(tokens_per_item, count - begin);
      const int32_t last = sequence.start + begin + rows - 1;
      const int32_t supers = last / ops::kKvSuperTile + 1;
      for (int32_t head = 0; head < plan_.kv.kv_heads; ++head) {
        Item item{static_cast<int32_t>(s), first_row + begin, rows, head, 0, supers, -1};
        if (count > 4 || supers <= kSplitSuperTiles || pool_.threads() == 1) {
          items_.push_back(item);
          continue;
        }
        merges_.push_back({item, supers, partials});
        for (int32_t super = 0; super < supers; ++super) {
          item.super_begin = super;
          item.super_end = super + 1;
          item.partial = partials++;
          items_.push_back(item);
        }
      }
    }
    first_row += count;
  }
  // The longest first, so that the last tile handed out is a short one.
  std::stable_sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
    return int64_t{a.rows} * (a.super_end - a.super_begin) >
           int64_t{b.rows} * (b.super_end - b.super_begin);
  });
  const size_t needed = partials * state_size_;
  if (partial_states_.size() < needed) partial_states_.resize(needed);
}

// ---- Writing ----

uint8_t* PagedAttention::HeadBytes(BlockId block, int32_t layer, int32_t kv_head) {
  const plan::KvLayout& kv = plan_.kv;
  return blocks_.bytes() + block * kv.block_bytes() + layer * kv.layer_bytes() +
         kv_head * kv.head_bytes();
}

uint8_t* PagedAttention::RowBytes(int64_t row, int32_t layer, int32_t kv_head) {
  const BatchSequence& sequence = batch_->sequences[rows_->sequences[row]];
  const int32_t block = rows_->positions[row] / plan_.kv.block_size;
  return HeadBytes(sequence.blocks[block], layer, kv_head);
}

void PagedAttention::StoreK(int64_t row, int32_t layer, int32_t kv_head, const float* k) {
  const plan::KvLayout& kv = plan_.kv;
  const int32_t column = kv.v_in_k ? kv.v_dim : 0;
  const int32_t width = kv.k_dim - column;
  absl::InlinedVector<float, 256> stored(k, k + width);
  if (const std::vector<float>& centers = plan_.key_centers[layer]; !centers.empty()) {
    for (int32_t d = 0; d < width; ++d) stored[d] -= centers[int64_t{kv_head} * kv.k_dim + d];
  }
  if (spread_from_ < kv.k_dim) plan_.kernels->spread(stored.data(), width, 1.0f, stored.data());
  const float scale = StoreKeyColumns(row, layer, kv_head, column, width, stored.data());
  StoreScale(row, layer, kv_head, kv.k_scale_offset(), scale);
}

void PagedAttention::StoreV(int64_t row, int32_t layer, int32_t kv_head, const float* v) {
  const plan::KvLayout& kv = plan_.kv;
  float scale;
  if (kv.v_in_k) {
    scale = StoreKeyColumns(row, layer, kv_head, 0, kv.v_dim, v);
  } else {
    const int64_t slot = rows_->positions[row] % kv.block_size;
    uint8_t* out =
        RowBytes(row, layer, kv_head) + kv.v_offset() + slot * kv.v_dim * kv.element_bytes();
    scale = plan_.kernels->round_kv(kv.type, v, kv.v_dim, 1, out);
  }
  StoreScale(row, layer, kv_head, kv.v_scale_offset(), scale);
}

// Columns [column, column + width) of a row's K; returns their scale.
float PagedAttention::StoreKeyColumns(int64_t row, int32_t layer, int32_t kv_head, int32_t column,
                                      int32_t width, const float* k) {
  const plan::KvLayout& kv = plan_.kv;
  const int64_t slot = rows_->positions[row] % kv.block_size;
  const int64_t element =
      (slot / ops::kKvUnit * kv.k_dim + column) * ops::kKvUnit + slot % ops::kKvUnit;
  uint8_t* out = RowBytes(row, layer, kv_head) + element * kv.element_bytes();
  return plan_.kernels->round_kv(kv.type, k, width, ops::kKvUnit, out);
}

void PagedAttention::StoreScale(int64_t row, int32_t layer, int32_t kv_head, int64_t offset,
                                float scale) {
  const plan::KvLayout& kv = plan_.kv;
  if (!ops::HasScales(kv.type)) return;
  const int64_t slot = rows_->positions[row] % kv.block_size;
  std::memcpy(RowBytes(row, layer, kv_head) + offset + slot * sizeof(float), &scale, sizeof(float));
}

// ---- Attending ----

// A query for the keys as they are stored: `q` itself or what is made of it in `out`.
const float* PagedAttention::Spread(const float* q, float* out) const {
  const int32_t dim = plan_.kv.k_dim;
  if (spread_from_ == dim) return q;
  const int32_t width = dim - spread_from_;
  std::copy_n(q, spread_from_, out);
  plan_.kernels->spread(q + spread_from_, width, 1.0f / ops::SpreadWidth(width),
                        out + spread_from_);
  return out;
}

void PagedAttention::Run(const plan::PlanNode& node, const float* q, int64_t q_stride, float* out,
                         int64_t out_stride) {
  const Target target{node, q, q_stride, out, out_stride};
  pool_.ParallelFor(static_cast<int64_t>(items_.size()),
                    [&](int64_t i, int thread) { Attend(target, items_[i], thread); });
  pool_.ParallelFor(static_cast<int64_t>(merges_.size()),
                    [&](int64_t i, int thread) { MergePartials(target, merges_[i], thread); });
}

PagedAttention::State PagedAttention::StateAt(float* base) const {
  return {base, base + item_rows_, base + 2 * int64_t{item_rows_}};
}

void PagedAttention::Clear(const State& state) const {
  std::fill_n(state.maximum, item_rows_, kMinusInfinity);
  std::fill_n(state.sum, state_size_ - item_rows_, 0.0f);
}

void PagedAttention::Merge(const State& from, int32_t rows, const State& into) const {
  const int64_t dim = plan_.kv.v_dim;
  for (int32_t r = 0; r < rows; ++r) {
    plan_.kernels->merge({plan_.kv.v_dim, from.maximum[r], from.sum[r], from.values + r * dim,
                          into.maximum + r, into.sum + r, into.values + r * dim});
  }
}

// Where K, V and their scales lie, of the super-tile at args.base up to position `last`.
void PagedAttention::FindUnits(const Item& item, int32_t layer, int32_t last,
                               ops::AttendArgs& args) {
  const plan::KvLayout& kv = plan_.kv;
  const absl::Span<const BlockId> blocks = batch_->sequences[item.sequence].blocks;
  for (int32_t u = 0; u < ops::kKvSuperUnits; ++u) {
    const int32_t position = args.base + u * ops::kKvUnit;
    if (position > last) return;
    const uint8_t* head = HeadBytes(blocks[position / kv.block_size], layer, item.kv_head);
    const int64_t slot = position % kv.block_size;
    args.k[u] = head + slot * kv.k_dim * kv.element_bytes();
    args.v[u] = head + kv.v_offset() + slot * kv.v_dim * kv.element_bytes();
    args.k_scale[u] = reinterpret_cast<const float*>(head + kv.k_scale_offset()) + slot;
    args.v_scale[u] = reinterpret_cast<const float*>(head + kv.v_scale_offset()) + slot;
  }
}

void PagedAttention::Attend(const Target& target, const Item& item, int thread) {
  const plan::KvLayout& kv = plan_.kv;
  const int32_t rows = item.rows * group_;
  const float* queries[std::max(kQueryRows, kMaxGroup)];
  int32_t first[std::max(kQueryRows, kMaxGroup)];
  int32_t last[std::max(kQueryRows, kMaxGroup)];
  float* scratch = scratch_.data() + thread * scratch_floats_;
  float* states = scratch + ops::AttendScratch(kv.k_dim, kv.v_dim);
  float* spread = states + 2 * state_size_;
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t row = item.first_row + r / group_;
    const float* q =
        target.q + row * target.q_stride + (item.kv_head * group_ + r % group_) * kv.k_dim;
    queries[r] = Spread(q, spread + int64_t{r} * kv.k_dim);
    last[r] = rows_->positions[row];
    first[r] = FirstSeen(last[r], target.node.window);
  }
  const bool partial = item.partial >= 0;
  const State state =
      StateAt(partial ? partial_states_.data() + item.partial * state_size_ : states);
  const State running = StateAt(states + state_size_);
  // The first row sees the earliest of all: what lies before is empty for each of them.
  const int32_t super_begin = std::max(item.super_begin, first[0] / ops::kKvSuperTile);
  if (partial && super_begin >= item.super_end) return Clear(state);
  if (!partial) Clear(running);

  ops::AttendArgs args;
  args.k_dim = kv.k_dim;
  args.v_dim = kv.v_dim;
  args.v_in_k = kv.v_in_k;
  args.type = kv.type;
  args.softcap = target.node.softcap;
  args.rows = rows;
  args.q = queries;
  args.first = first;
  args.last = last;
  args.maximum = state.maximum;
  args.sum = state.sum;
  args.values = state.values;
  args.scratch = scratch;
  for (int32_t super = super_begin; super < item.super_end; ++super) {
    args.base = super * ops::kKvSuperTile;
    FindUnits(item, target.node.layer, last[rows - 1], args);
    plan_.kernels->attend(args);
    if (partial) return;
    Merge(state, rows, running);
  }
  Finish(target, item, running);
}

void PagedAttention::MergePartials(const Target& target, const MergeItem& merge, int thread) {
  const State running = StateAt(scratch_.data() + thread * scratch_floats_);
  Clear(running);
  for (int32_t p = 0; p < merge.partials; ++p) {
    Merge(StateAt(partial_states_.data() + (merge.partial + p) * state_size_),
          merge.item.rows * group_, running);
  }
  Finish(target, merge.item, running);
}

// Divides by the sums, to which a head's sink is added at last: a score without a value.
void PagedAttention::Finish(const Target& target, const Item& item, const State& state) const {
  const int32_t dim = plan_.kv.v_dim;
  const std::vector<float> nothing(target.node.vector >= 0 ? dim : 0, 0.0f);
  for (int32_t r = 0; r < item.rows * group_; ++r) {
    const int32_t head = item.kv_head * group_ + r % group_;
    float* values = state.values + int64_t{r} * dim;
    if (target.node.vector >= 0) {
      const float sink = plan_.vectors[target.node.vector][head];
      plan_.kernels->merge(
          {dim, sink, 1.0f, nothing.data(), state.maximum + r, state.sum + r, values});
    }
    float* out =
        target.out + (item.first_row + r / group_) * target.out_stride + int64_t{head} * dim;
    for (int32_t d = 0; d < dim; ++d) out[d] = values[d] / state.sum[r];
  }
}

}  // namespace kvasir::runtime
