#include "runtime/plan_runner.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include "base/check.h"
#include "base/float16.h"

namespace kvasir::runtime {
namespace {

using graph::Op;
using graph::Operand;
using graph::Rows;
using graph::ValueId;
using graph::ValueType;
using plan::PlanNode;

// Query rows of an item: enough to share a tile's conversion, few enough for their state to stay
// in the second-level cache.
constexpr int32_t kQueryRows = 96;
// A decode over more super-tiles than this is split over threads.
constexpr int32_t kSplitSuperTiles = 2;
// Below this much work a loop is not worth waking another thread.
constexpr int64_t kSerialElements = 8192;
constexpr int64_t kMatmulRows = 128;  // rows of activations that a tile of a product takes

}  // namespace

StatusOr<std::unique_ptr<PlanRunner>> PlanRunner::Create(plan::Plan plan, int32_t num_blocks,
                                                         std::unique_ptr<ThreadPool> pool) {
  std::unique_ptr<PlanRunner> out(new PlanRunner(std::move(plan), num_blocks, std::move(pool)));
  const plan::Plan& p = out->plan_;
  KVASIR_ASSIGN_OR_RETURN(out->arena_, device::Buffer::Allocate(p.arena_bytes));
  auto kv = device::Buffer::Allocate(static_cast<size_t>(num_blocks) * p.kv.block_bytes());
  if (!kv.ok()) {
    return absl::ResourceExhaustedError(fmt::format("kv-cache-memory: {}", kv.status().ToString()));
  }
  out->kv_ = *std::move(kv);
  return out;
}

PlanRunner::PlanRunner(plan::Plan plan, int32_t num_blocks, std::unique_ptr<ThreadPool> pool)
    : plan_(std::move(plan)), num_blocks_(num_blocks), pool_(std::move(pool)) {
  const int32_t group = plan_.heads / plan_.kv.kv_heads;
  attend_rows_ = std::max(group, kQueryRows / group * group);
  int64_t widest = 0;
  for (const plan::PlanValue& value : plan_.values) widest = std::max<int64_t>(widest, value.width);
  // A float row, or the tile scratch and the two states of an item's rows.
  const int64_t state = attend_rows_ * (int64_t{plan_.kv.head_dim} + 2);
  scratch_floats_ =
      std::max<int64_t>(widest, ops::AttendScratch(plan_.kv.head_dim) + 2 * state) + 64;
  scratch_.resize(scratch_floats_ * pool_->threads());
}

Status PlanRunner::CheckBatch(const Batch& batch, const BatchOutput& output) const {
  const auto fail = [](const std::string& what) { return absl::InternalError("batch: " + what); };
  int64_t tokens = 0;
  size_t logits = 0, hidden = 0;
  const auto bad_block = [&](BlockId block) { return block < 0 || block >= num_blocks_; };
  for (const BlockCopy& copy : batch.copies) {
    if (bad_block(copy.from) || bad_block(copy.to)) return fail("a copied block does not exist");
  }
  for (const BatchSequence& s : batch.sequences) {
    const int64_t end = s.start + static_cast<int64_t>(s.tokens.size());
    if (s.tokens.empty() || s.start < 0) return fail("a sequence has no tokens");
    if (end > plan_.max_model_len) return fail("a sequence exceeds the context");
    if (static_cast<int64_t>(s.blocks.size()) * plan_.kv.block_size < end) {
      return fail("a sequence has too few blocks");
    }
    for (BlockId block : s.blocks) {
      if (bad_block(block)) return fail("a block does not exist");
    }
    for (TokenId id : s.tokens) {
      if (id < 0 || id >= plan_.vocab) return fail(fmt::format("token {} does not exist", id));
    }
    const int32_t count = static_cast<int32_t>(s.tokens.size());
    if (std::min(s.logits, s.hidden) != 0 || std::max(s.logits, s.hidden) > count) {
      return fail("a sequence wants rows that it has not");
    }
    tokens += count;
    logits += s.logits;
    hidden += s.hidden;
  }
  if (tokens > plan_.max_batch_tokens) return fail("too many tokens");
  if (output.logits.size() != logits * plan_.vocab ||
      output.hidden.size() != hidden * plan_.hidden) {
    return fail("the output has another size");
  }
  return absl::OkStatus();
}

Status PlanRunner::Run(const Batch& batch, const BatchOutput& output) {
  KVASIR_RETURN_IF_ERROR(CheckBatch(batch, output));
  batch_ = &batch;
  logits_ = output.logits.data();
  hidden_ = output.hidden.data();
  CopyBlocks(batch);
  if (batch.sequences.empty()) return absl::OkStatus();
  SetUpRows(batch);
  SetUpAttention(batch);
  for (const PlanNode& node : plan_.nodes) Execute(node);
  return absl::OkStatus();
}

void PlanRunner::CopyBlocks(const Batch& batch) {
  const int64_t bytes = plan_.kv.block_bytes();
  for (const BlockCopy& copy : batch.copies) {
    std::memcpy(kv_.bytes() + copy.to * bytes, kv_.bytes() + copy.from * bytes, bytes);
  }
}

void PlanRunner::SetUpRows(const Batch& batch) {
  tokens_.clear();
  positions_.clear();
  row_sequence_.clear();
  output_rows_.clear();
  std::vector<int32_t> hidden_rows;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const BatchSequence& sequence = batch.sequences[s];
    for (size_t i = 0; i < sequence.tokens.size(); ++i) {
      tokens_.push_back(sequence.tokens[i]);
      positions_.push_back(sequence.start + static_cast<int32_t>(i));
      row_sequence_.push_back(static_cast<int32_t>(s));
    }
    const int32_t end = static_cast<int32_t>(tokens_.size());
    for (int32_t r = end - sequence.logits; r < end; ++r) output_rows_.push_back(r);
    for (int32_t r = end - sequence.hidden; r < end; ++r) hidden_rows.push_back(r);
  }
  logit_rows_ = static_cast<int64_t>(output_rows_.size());
  output_rows_.insert(output_rows_.end(), hidden_rows.begin(), hidden_rows.end());
}

void PlanRunner::SetUpAttention(const Batch& batch) {
  attention_items_.clear();
  merge_items_.clear();
  const int32_t group = plan_.heads / plan_.kv.kv_heads;
  const int32_t tokens_per_item = attend_rows_ / group;
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
        AttentionItem item{static_cast<int32_t>(s), first_row + begin, rows, head, 0, supers, -1};
        if (count > 4 || supers <= kSplitSuperTiles || pool_->threads() == 1) {
          attention_items_.push_back(item);
          continue;
        }
        merge_items_.push_back({item.first_row, rows, head, supers, partials});
        for (int32_t super = 0; super < supers; ++super) {
          item.super_begin = super;
          item.super_end = super + 1;
          item.partial = partials++;
          attention_items_.push_back(item);
        }
      }
    }
    first_row += count;
  }
  // The longest first, so that the last tile handed out is a short one.
  std::stable_sort(attention_items_.begin(), attention_items_.end(),
                   [](const AttentionItem& a, const AttentionItem& b) {
                     return int64_t{a.rows} * (a.super_end - a.super_begin) >
                            int64_t{b.rows} * (b.super_end - b.super_begin);
                   });
  const size_t state = attend_rows_ * (plan_.kv.head_dim + size_t{2});
  if (partial_states_.size() < partials * state) partial_states_.resize(partials * state);
}

void PlanRunner::Execute(const PlanNode& node) {
  switch (node.op) {
    case Op::kEmbed:
      return Embed(node);
    case Op::kRmsNorm:
      return RmsNorm(node);
    case Op::kMatmul:
      return Matmul(node);
    case Op::kRope:
      return Rope(node);
    case Op::kScale:
    case Op::kSilu:
    case Op::kMul:
    case Op::kAdd:
      return Elementwise(node);
    case Op::kKvWrite:
      return KvWrite(node);
    case Op::kAttention:
      return Attention(node);
    case Op::kSelectRows:
      return SelectRows(node);
    case Op::kQuantize:
      return Quantize(node);
    case Op::kSwiGlu:
      return SwiGlu(node);
    case Op::kRopeKvWrite:
      return RopeKvWrite(node);
  }
}

template <typename Body>
void PlanRunner::ForRows(Rows kind, int64_t cost, const Body& body) {
  const int64_t rows = RowCount(kind);
  const int64_t chunk = std::max<int64_t>(1, kSerialElements / std::max<int64_t>(cost, 1));
  pool_->ParallelFor((rows + chunk - 1) / chunk, [&](int64_t tile, int thread) {
    for (int64_t r = tile * chunk; r < std::min(rows, (tile + 1) * chunk); ++r) body(r, thread);
  });
}

int64_t PlanRunner::RowCount(Rows kind) const {
  return static_cast<int64_t>(kind == Rows::kTokens ? tokens_.size() : output_rows_.size());
}

float* PlanRunner::Floats(ValueId value) {
  if (value == plan_.logits) return logits_;
  return reinterpret_cast<float*>(arena_.bytes() + plan_.values[value].offset);
}

const float* PlanRunner::Row(const Operand& operand, int64_t row) {
  return Floats(operand.value) + row * plan_.values[operand.value].width + operand.column;
}

ops::QuantizedRows PlanRunner::QuantizedValue(ValueId value) {
  const plan::PlanValue& v = plan_.values[value];
  const int64_t rows = v.rows == Rows::kTokens ? plan_.max_batch_tokens : plan_.max_output_rows;
  return ops::QuantizedRows::At(arena_.bytes() + v.offset, rows, v.width);
}

// Stores a float row in whatever type the value has.
void PlanRunner::WriteRow(ValueId value, int64_t row, const float* x) {
  const plan::PlanValue& v = plan_.values[value];
  switch (v.type) {
    case ValueType::kFloat: {
      float* out = Floats(value) + row * v.width;
      if (out != x) std::memcpy(out, x, sizeof(float) * v.width);
      return;
    }
    case ValueType::kQuantized:
      return plan_.kernels->quantize(x, row, QuantizedValue(value));
    case ValueType::kBf16: {
      uint16_t* out = reinterpret_cast<uint16_t*>(arena_.bytes() + v.offset) + row * v.width;
      return plan_.kernels->round_bf16(x, v.width, out);
    }
  }
}

void PlanRunner::Embed(const PlanNode& node) {
  const plan::EmbeddingTable& table = plan_.embedding;
  const DTypeInfo info = Info(table.dtype);
  const int64_t row_bytes = table.cols / info.block_elements * info.block_bytes;
  float* out = Floats(node.output);
  ForRows(Rows::kTokens, table.cols, [&](int64_t r, int) {
    ops::DequantizeRow(table.dtype, table.data + tokens_[r] * row_bytes, table.cols,
                       out + r * table.cols);
  });
}

void PlanRunner::SelectRows(const PlanNode& node) {
  const int32_t width = node.inputs[0].width;
  float* out = Floats(node.output);
  for (size_t i = 0; i < output_rows_.size(); ++i) {
    std::memcpy(out + i * width, Row(node.inputs[0], output_rows_[i]), sizeof(float) * width);
  }
}

void PlanRunner::RmsNorm(const PlanNode& node) {
  const Operand& x = node.inputs[0];
  const float* weight = plan_.vectors[node.vector].data();
  const Rows kind = plan_.values[node.output].rows;
  ForRows(kind, x.width, [&](int64_t r, int thread) {
    if (kind == Rows::kOutput && r >= logit_rows_) {
      // What the final norm gives, before it is rounded for the head.
      float* out = hidden_ + (r - logit_rows_) * x.width;
      return plan_.kernels->rms_norm(Row(x, r), weight, plan_.rms_eps, x.width, out);
    }
    plan_.kernels->rms_norm(Row(x, r), weight, plan_.rms_eps, x.width, Scratch(thread));
    WriteRow(node.output, r, Scratch(thread));
  });
}

void PlanRunner::SwiGlu(const PlanNode& node) {
  const int32_t width = node.inputs[0].width;
  ForRows(plan_.values[node.output].rows, 4 * width, [&](int64_t r, int thread) {
    plan_.kernels->swiglu(Row(node.inputs[0], r), Row(node.inputs[1], r), width, Scratch(thread));
    WriteRow(node.output, r, Scratch(thread));
  });
}

// The ops of graphs that were not fused.
void PlanRunner::Elementwise(const PlanNode& node) {
  const int32_t width = node.inputs[0].width;
  const std::vector<float> ones(width, 1.0f);
  ForRows(plan_.values[node.output].rows, width, [&](int64_t r, int) {
    const float* a = Row(node.inputs[0], r);
    const float* b = node.inputs.size() > 1 ? Row(node.inputs[1], r) : ones.data();
    float* out = Floats(node.output) + r * width;
    if (node.op == Op::kSilu) return plan_.kernels->swiglu(a, b, width, out);
    for (int32_t i = 0; i < width; ++i) {
      out[i] = node.op == Op::kScale ? a[i] * node.scale
               : node.op == Op::kMul ? a[i] * b[i]
                                     : a[i] + b[i];
    }
  });
}

void PlanRunner::Quantize(const PlanNode& node) {
  ForRows(plan_.values[node.output].rows, node.inputs[0].width,
          [&](int64_t r, int) { WriteRow(node.output, r, Row(node.inputs[0], r)); });
}

void PlanRunner::Matmul(const PlanNode& node) {
  const plan::PlanValue& input = plan_.values[node.inputs[0].value];
  const int64_t rows = node.output == plan_.logits ? logit_rows_ : RowCount(input.rows);
  if (rows == 0) return;
  ops::MatmulArgs args;
  args.weights = plan_.matrices[node.matrix].view;
  switch (input.type) {
    case ValueType::kFloat:
      args.floats = Floats(node.inputs[0].value);
      break;
    case ValueType::kQuantized:
      args.quantized = QuantizedValue(node.inputs[0].value);
      break;
    case ValueType::kBf16:
      args.bf16 = reinterpret_cast<const uint16_t*>(arena_.bytes() + input.offset);
      break;
  }
  args.bias = node.bias < 0 ? nullptr : plan_.vectors[node.bias].data();
  args.out = Floats(node.output);
  args.out_stride = plan_.values[node.output].width;
  args.accumulate = node.residual;

  const int64_t panels = args.weights.panels;
  const int64_t row_tiles = (rows + kMatmulRows - 1) / kMatmulRows;
  const int64_t wanted = std::max<int64_t>(1, 6 * pool_->threads() / row_tiles);
  const int64_t chunk = std::clamp<int64_t>((panels + wanted - 1) / wanted, 1, 64);
  const int64_t panel_tiles = (panels + chunk - 1) / chunk;
  pool_->ParallelFor(row_tiles * panel_tiles, [&](int64_t tile, int) {
    ops::MatmulArgs part = args;
    part.panel_begin = tile % panel_tiles * chunk;
    part.panel_end = std::min(panels, part.panel_begin + chunk);
    part.row_begin = tile / panel_tiles * kMatmulRows;
    part.row_end = std::min(rows, part.row_begin + kMatmulRows);
    plan_.kernels->matmul(part);
  });
}

// The half-split rotation of Su et al., RoFormer: (a, b) -> (a cos - b sin, a sin + b cos).
void PlanRunner::RotateHead(const float* x, int64_t position, float scale, float* out) const {
  const int32_t half = plan_.kv.head_dim / 2;
  const float* cosines = plan_.cosines.data() + position * half;
  const float* sines = plan_.sines.data() + position * half;
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    out[i] = (a * cosines[i] - b * sines[i]) * scale;
    out[i + half] = (a * sines[i] + b * cosines[i]) * scale;
  }
}

void PlanRunner::Rope(const PlanNode& node) {
  const int32_t dim = plan_.kv.head_dim;
  const int32_t width = node.inputs[0].width;
  ForRows(Rows::kTokens, width, [&](int64_t r, int) {
    const float* x = Row(node.inputs[0], r);
    float* out = Floats(node.output) + r * width;
    for (int32_t at = 0; at < width; at += dim) RotateHead(x + at, positions_[r], 1.0f, out + at);
  });
}

void PlanRunner::KvWrite(const PlanNode& node) {
  const int32_t dim = plan_.kv.head_dim;
  ForRows(Rows::kTokens, node.inputs[0].width, [&](int64_t r, int) {
    for (int32_t head = 0; head < plan_.kv.kv_heads; ++head) {
      StoreKv(r, node.layer, head, Row(node.inputs[0], r) + head * dim,
              Row(node.inputs[1], r) + head * dim);
    }
  });
}

void PlanRunner::RopeKvWrite(const PlanNode& node) {
  const int32_t dim = plan_.kv.head_dim;
  const int32_t width = node.inputs[0].width;
  ForRows(Rows::kTokens, width, [&](int64_t r, int thread) {
    const float* q = Row(node.inputs[0], r);
    float* out = Floats(node.output) + r * width;
    for (int32_t at = 0; at < width; at += dim) {
      RotateHead(q + at, positions_[r], node.scale, out + at);
    }
    for (int32_t head = 0; head < plan_.kv.kv_heads; ++head) {
      RotateHead(Row(node.inputs[1], r) + head * dim, positions_[r], 1.0f, Scratch(thread));
      StoreKv(r, node.layer, head, Scratch(thread), Row(node.inputs[2], r) + head * dim);
    }
  });
}

uint8_t* PlanRunner::HeadBytes(BlockId block, int32_t layer, int32_t kv_head) {
  const plan::KvLayout& kv = plan_.kv;
  return kv_.bytes() + block * kv.block_bytes() + layer * kv.layer_bytes() +
         kv_head * kv.head_bytes();
}

void PlanRunner::StoreKv(int64_t row, int32_t layer, int32_t kv_head, const float* k,
                         const float* v) {
  const plan::KvLayout& kv = plan_.kv;
  const int32_t position = positions_[row];
  const BatchSequence& sequence = batch_->sequences[row_sequence_[row]];
  uint8_t* head = HeadBytes(sequence.blocks[position / kv.block_size], layer, kv_head);
  const int32_t slot = position % kv.block_size;
  const int64_t k_at =
      int64_t{slot / ops::kKvUnit} * kv.head_dim * ops::kKvUnit + slot % ops::kKvUnit;
  const int64_t v_at = int64_t{slot} * kv.head_dim;
  for (int32_t d = 0; d < kv.head_dim; ++d) {
    if (kv.dtype == DType::kF32) {
      std::memcpy(head + 4 * (k_at + d * ops::kKvUnit), &k[d], 4);
      std::memcpy(head + kv.k_bytes() + 4 * (v_at + d), &v[d], 4);
    } else {
      const Bf16 kb = ToBf16(k[d]);
      const Bf16 vb = ToBf16(v[d]);
      std::memcpy(head + 2 * (k_at + d * ops::kKvUnit), &kb, 2);
      std::memcpy(head + kv.k_bytes() + 2 * (v_at + d), &vb, 2);
    }
  }
}

void PlanRunner::Attention(const PlanNode& node) {
  float* out = Floats(node.output);
  const int32_t width = plan_.values[node.output].width;
  pool_->ParallelFor(static_cast<int64_t>(attention_items_.size()), [&](int64_t i, int thread) {
    Attend(attention_items_[i], node.inputs[0], node.layer, out, width, thread);
  });
  pool_->ParallelFor(static_cast<int64_t>(merge_items_.size()),
                     [&](int64_t i, int) { MergePartials(merge_items_[i], out, width); });
}

void PlanRunner::Attend(const AttentionItem& item, const Operand& q, int32_t layer, float* out,
                        int32_t width, int thread) {
  const plan::KvLayout& kv = plan_.kv;
  const int32_t group = plan_.heads / kv.kv_heads;
  const int32_t rows = item.rows * group;
  const float* queries[kQueryRows * 8];
  int32_t first[kQueryRows * 8];
  int32_t last[kQueryRows * 8];
  KVASIR_CHECK(rows <= kQueryRows * 8, "an attention item has too many rows");
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t row = item.first_row + r / group;
    queries[r] = Row(q, row) + (item.kv_head * group + r % group) * kv.head_dim;
    last[r] = positions_[row];
    first[r] = plan_.window > 0 ? std::max(0, last[r] - plan_.window + 1) : 0;
  }
  float* scratch = Scratch(thread);
  float* state = scratch + ops::AttendScratch(kv.head_dim);
  const int64_t state_size = int64_t{attend_rows_} * (kv.head_dim + 2);
  float* running = state + state_size;  // maximum[rows], sum[rows], values[rows][head_dim]
  if (item.partial >= 0) state = partial_states_.data() + item.partial * state_size;
  std::fill_n(running, attend_rows_, -std::numeric_limits<float>::infinity());
  std::fill_n(running + attend_rows_, state_size - attend_rows_, 0.0f);

  ops::AttendArgs args;
  args.head_dim = kv.head_dim;
  args.kv_f32 = kv.dtype == DType::kF32;
  args.rows = rows;
  args.q = queries;
  args.first = first;
  args.last = last;
  args.maximum = state;
  args.sum = state + attend_rows_;
  args.values = state + 2 * attend_rows_;
  args.scratch = scratch;
  const absl::Span<const BlockId> blocks = batch_->sequences[item.sequence].blocks;
  const int64_t unit_bytes = int64_t{kv.head_dim} * ops::kKvUnit * kv.element_bytes();
  for (int32_t super = item.super_begin; super < item.super_end; ++super) {
    args.base = super * ops::kKvSuperTile;
    for (int32_t u = 0; u < ops::kKvSuperTile / ops::kKvUnit; ++u) {
      const int32_t position = args.base + u * ops::kKvUnit;
      if (position > last[rows - 1]) break;
      const uint8_t* head = HeadBytes(blocks[position / kv.block_size], layer, item.kv_head) +
                            position % kv.block_size / ops::kKvUnit * unit_bytes;
      args.k[u] = head;
      args.v[u] = head + kv.k_bytes();
    }
    plan_.kernels->attend(args);
    if (item.partial >= 0) return;
    for (int32_t r = 0; r < rows; ++r) {
      plan_.kernels->merge({kv.head_dim, args.maximum[r], args.sum[r],
                            args.values + r * kv.head_dim, running + r, running + attend_rows_ + r,
                            running + 2 * attend_rows_ + r * kv.head_dim});
    }
  }
  for (int32_t r = 0; r < rows; ++r) {
    float* target = out + (item.first_row + r / group) * int64_t{width} +
                    (item.kv_head * group + r % group) * kv.head_dim;
    const float* values = running + 2 * attend_rows_ + r * kv.head_dim;
    for (int32_t d = 0; d < kv.head_dim; ++d) target[d] = values[d] / running[attend_rows_ + r];
  }
}

void PlanRunner::MergePartials(const MergeItem& item, float* out, int32_t width) {
  const int32_t dim = plan_.kv.head_dim;
  const int32_t group = plan_.heads / plan_.kv.kv_heads;
  const int64_t state_size = int64_t{attend_rows_} * (dim + 2);
  for (int32_t r = 0; r < item.rows * group; ++r) {
    float maximum = -std::numeric_limits<float>::infinity();
    float sum = 0.0f;
    float* target = out + (item.first_row + r / group) * int64_t{width} +
                    (item.kv_head * group + r % group) * dim;
    std::fill_n(target, dim, 0.0f);
    for (int32_t p = 0; p < item.partials; ++p) {
      const float* state = partial_states_.data() + (item.partial + p) * state_size;
      plan_.kernels->merge({dim, state[r], state[attend_rows_ + r],
                            state + 2 * attend_rows_ + r * dim, &maximum, &sum, target});
    }
    for (int32_t d = 0; d < dim; ++d) target[d] /= sum;
  }
}

}  // namespace kvasir::runtime
