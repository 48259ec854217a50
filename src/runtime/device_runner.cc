#include "runtime/device_runner.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/check.h"
#include "base/float16.h"
#include "base/log.h"
#include "runtime/check_batch.h"

namespace kvasir::runtime {
namespace {

using graph::Op;
using graph::Operand;
using graph::Rows;
using graph::ValueId;
using graph::ValueType;
using plan::PlanNode;

// Weights go through two pieces of host memory of this size, one filled while the other is copied.
constexpr int64_t kUploadBytes = int64_t{64} << 20;
// Numbers of rows for which steps of decodes are recorded.
constexpr int64_t kRecordedRows[] = {1,  2,  4,  8,   16,  24,  32,  40,  48, 56,
                                     64, 80, 96, 112, 128, 160, 192, 224, 256};
constexpr int64_t kTableEntries = int64_t{1} << 16;  // blocks of all page tables, at the start

Status NotThere(const PlanNode& node, const char* what) {
  return absl::UnimplementedError(
      fmt::format("op {}: {} is not there on devices", graph::Name(node.op), what));
}

}  // namespace

StatusOr<std::unique_ptr<DeviceRunner>> DeviceRunner::Create(plan::Plan plan, DeviceOptions options,
                                                             std::unique_ptr<ThreadPool> pool,
                                                             ops::Accelerator accelerator) {
  std::unique_ptr<DeviceRunner> out(
      new DeviceRunner(std::move(plan), options, std::move(pool), std::move(accelerator)));
  KVASIR_RETURN_IF_ERROR(out->CheckPlan());
  const int64_t free_at_start = out->device_.free_memory();
  KVASIR_RETURN_IF_ERROR(
      out->kernels_.Reserve(out->plan_.max_batch_tokens, out->plan_.heads, out->KvOf(0)));
  KVASIR_RETURN_IF_ERROR(out->Upload());
  out->staging_ = {};
  KVASIR_RETURN_IF_ERROR(out->AllocateStep());
  KVASIR_RETURN_IF_ERROR(out->AllocateBlocks(free_at_start));
  KVASIR_RETURN_IF_ERROR(out->RecordDecodes());
  return out;
}

DeviceRunner::DeviceRunner(plan::Plan plan, DeviceOptions options, std::unique_ptr<ThreadPool> pool,
                           ops::Accelerator accelerator)
    : plan_(std::move(plan)),
      options_(options),
      pool_(std::move(pool)),
      accelerator_(std::move(accelerator)),
      device_(*accelerator_.device),
      kernels_(*accelerator_.kernels),
      group_(plan_.heads / plan_.kv_heads) {}

// ---- At the start ----

Status DeviceRunner::CheckPlan() const {
  if (plan_.activations != "bf16") {
    return absl::FailedPreconditionError(fmt::format(
        "the plan was compiled for activations '{}': devices run 'bf16'", plan_.activations));
  }
  if (plan_.kv.type != ops::KvType::kBf16 || plan_.v_in_k || plan_.k_dim != plan_.v_dim) {
    return absl::UnimplementedError(
        "latent attention, or KV of another type than BF16, is not there on devices");
  }
  for (const PlanNode& node : plan_.nodes) KVASIR_RETURN_IF_ERROR(CheckNode(node));
  return absl::OkStatus();
}

Status DeviceRunner::CheckNode(const PlanNode& node) const {
  for (const Operand& in : node.inputs) {
    if ((in.column | in.width | plan_.values[in.value].width) % 8 != 0) {
      return NotThere(node, "a width that is no multiple of 8");
    }
  }
  switch (node.op) {
    case Op::kEmbed:
    case Op::kQuantize:
    case Op::kRmsNorm:
    case Op::kSelectRows:
      return absl::OkStatus();
    case Op::kMatmul:
      return node.softcap != 0 ? NotThere(node, "a soft cap") : absl::OkStatus();
    case Op::kRopeKvWrite:
      return plan_.rotations[node.table].width % 16 != 0
                 ? NotThere(node, "a rotated width that is no multiple of 16")
                 : absl::OkStatus();
    case Op::kAttention:
      if (node.softcap != 0) return NotThere(node, "a soft cap");
      if (node.window != 0) return NotThere(node, "a sliding window");
      if (node.vector >= 0) return NotThere(node, "a sink");
      if (plan_.values[node.inputs[0].value].type != ValueType::kBf16) {
        return NotThere(node, "a query that is no BF16");
      }
      return absl::OkStatus();
    case Op::kGated:
      return node.gate.kind != graph::GateKind::kSilu ? NotThere(node, "another gate than SiLU")
                                                      : absl::OkStatus();
    default:
      return NotThere(node, "it");
  }
}

// Rows of `row_bytes` that `load` writes, from all threads of the pool.
Status DeviceRunner::UploadRows(int64_t row_bytes, int64_t rows, uint8_t* to,
                                const std::function<void(int64_t row, uint8_t* out)>& load) {
  const int64_t piece = std::clamp<int64_t>(kUploadBytes / row_bytes, 1, rows);
  if (staging_.size() < 2 * piece * row_bytes) {
    KVASIR_ASSIGN_OR_RETURN(staging_,
                            device_.AllocateHost(2 * std::max(kUploadBytes, piece * row_bytes)));
  }
  for (int64_t begin = 0, half = 0; begin < rows; begin += piece, half ^= 1) {
    uint8_t* const host = staging_.bytes() + half * piece * row_bytes;
    const int64_t count = std::min(piece, rows - begin);
    const int64_t chunk = std::max<int64_t>(1, (int64_t{1} << 20) / row_bytes);
    pool_->ParallelFor((count + chunk - 1) / chunk, [&](int64_t i, int) {
      for (int64_t r = i * chunk; r < std::min(count, (i + 1) * chunk); ++r) {
        load(begin + r, host + r * row_bytes);
      }
    });
    // The copy before this one, out of the other half, went on meanwhile.
    KVASIR_RETURN_IF_ERROR(device_.Synchronize());
    device_.CopyIn(to + begin * row_bytes, host, count * row_bytes);
  }
  return device_.Synchronize();
}

Status DeviceRunner::UploadFloats(absl::Span<const float> values, device::DeviceMemory& out) {
  const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(float));
  KVASIR_ASSIGN_OR_RETURN(out, device_.Allocate(bytes));
  device_.CopyIn(out.bytes(), values.data(), bytes);
  return device_.Synchronize();
}

Status DeviceRunner::Upload() {
  for (const ops::PackedMatrix& matrix : plan_.matrices) {
    const int64_t row_bytes = matrix.view.cols * 2;
    KVASIR_ASSIGN_OR_RETURN(matrices_.emplace_back(),
                            device_.Allocate(matrix.view.rows * row_bytes));
    KVASIR_RETURN_IF_ERROR(UploadRows(
        row_bytes, matrix.view.rows, matrices_.back().bytes(), [&](int64_t row, uint8_t* out) {
          std::memcpy(out, matrix.view.data + row * row_bytes, row_bytes);
        }));
  }
  for (const std::vector<float>& vector : plan_.vectors) {
    KVASIR_RETURN_IF_ERROR(UploadFloats(vector, vectors_.emplace_back()));
  }
  for (const plan::Rotation& rotation : plan_.rotations) {
    Rotation& out = rotations_.emplace_back();
    KVASIR_RETURN_IF_ERROR(UploadFloats(rotation.cosines, out.cosines));
    KVASIR_RETURN_IF_ERROR(UploadFloats(rotation.sines, out.sines));
  }
  const plan::EmbeddingTable& table = plan_.embedding;
  const DTypeInfo info = Info(table.dtype);
  const int64_t stored_bytes = table.cols / info.block_elements * info.block_bytes;
  KVASIR_ASSIGN_OR_RETURN(embedding_, device_.Allocate(table.rows * table.cols * 2));
  return UploadRows(table.cols * 2, table.rows, embedding_.bytes(), [&](int64_t row, uint8_t* out) {
    const uint8_t* stored = table.data + row * stored_bytes;
    if (table.dtype == DType::kBf16) {
      std::memcpy(out, stored, stored_bytes);
      return;
    }
    std::vector<float> floats(table.cols);
    ops::DequantizeRow(table.dtype, stored, table.cols, floats.data());
    for (int64_t c = 0; c < table.cols; ++c) {
      const Bf16 rounded = ToBf16(floats[c]);
      std::memcpy(out + 2 * c, &rounded, 2);
    }
  });
}

Status DeviceRunner::AllocateStep() {
  KVASIR_ASSIGN_OR_RETURN(arena_, device_.Allocate(plan_.arena_bytes));
  const int64_t rows = std::min<int64_t>(options_.max_recorded_rows, plan_.max_batch_tokens);
  KVASIR_RETURN_IF_ERROR(EnsureOutputs(rows, 1));
  return EnsureInput(kTableEntries);
}

// What is recorded names the memory that is replaced, and is recorded anew.
Status DeviceRunner::EnsureOutputs(int64_t logit_rows, int64_t hidden_rows) {
  const int64_t logit_bytes = logit_rows * plan_.vocab * static_cast<int64_t>(sizeof(float));
  const int64_t hidden_bytes = hidden_rows * plan_.hidden * static_cast<int64_t>(sizeof(float));
  if (logits_.size() < logit_bytes) {
    KVASIR_RETURN_IF_ERROR(device_.Synchronize());
    recordings_.clear();
    logits_ = {};
    KVASIR_ASSIGN_OR_RETURN(logits_, device_.Allocate(logit_bytes));
    KVASIR_ASSIGN_OR_RETURN(drawn_, device_.Allocate(logit_rows * sizeof(int32_t)));
    KVASIR_ASSIGN_OR_RETURN(draws_, device_.Allocate(logit_rows * sizeof(ops::DeviceDraw)));
    KVASIR_ASSIGN_OR_RETURN(host_logits_, device_.AllocateHost(logit_bytes));
    KVASIR_ASSIGN_OR_RETURN(host_drawn_, device_.AllocateHost(drawn_.size()));
    KVASIR_ASSIGN_OR_RETURN(host_draws_, device_.AllocateHost(draws_.size()));
  }
  if (hidden_.size() < hidden_bytes) {
    KVASIR_RETURN_IF_ERROR(device_.Synchronize());
    KVASIR_ASSIGN_OR_RETURN(hidden_, device_.Allocate(hidden_bytes));
    KVASIR_ASSIGN_OR_RETURN(host_hidden_, device_.AllocateHost(hidden_bytes));
  }
  return absl::OkStatus();
}

// Room for the rows of any step and for page tables of so many blocks together.
Status DeviceRunner::EnsureInput(int64_t blocks) {
  const int64_t most = plan_.max_batch_tokens;
  const int64_t ints = Shape{most, most, most, most, most, most}.tables() + blocks;
  const int64_t bytes = ints * static_cast<int64_t>(sizeof(int32_t));
  if (input_.size() >= bytes) return absl::OkStatus();
  KVASIR_RETURN_IF_ERROR(device_.Synchronize());
  recordings_.clear();
  KVASIR_ASSIGN_OR_RETURN(input_, device_.Allocate(bytes));
  KVASIR_ASSIGN_OR_RETURN(host_input_, device_.AllocateHost(bytes));
  return absl::OkStatus();
}

Status DeviceRunner::AllocateBlocks(int64_t free_at_start) {
  const int64_t block = plan_.kv.block_bytes();
  num_blocks_ = options_.num_blocks;
  if (num_blocks_ == 0) {
    const int64_t used = free_at_start - device_.free_memory();
    const int64_t left =
        static_cast<int64_t>(options_.memory_share * static_cast<double>(free_at_start)) - used;
    num_blocks_ = static_cast<int32_t>(std::min<int64_t>(left / block, 1 << 30));
    if (num_blocks_ < 2) {
      return absl::ResourceExhaustedError(fmt::format(
          "device '{}': {} MiB are left for KV blocks behind weights and activations of {} MiB",
          device_.name(), left >> 20, used >> 20));
    }
  }
  KVASIR_ASSIGN_OR_RETURN(blocks_, device_.Allocate(num_blocks_ * block));
  return device_.Synchronize();
}

Status DeviceRunner::RecordDecodes() {
  for (const int64_t rows : kRecordedRows) {
    if (rows > options_.max_recorded_rows || rows > plan_.max_batch_tokens) break;
    shape_ = PaddedDecodes(rows);
    FillPadding();
    // Once at once, so that whatever loads at its first use has done so.
    Execute();
    KVASIR_RETURN_IF_ERROR(device_.Synchronize());
    KVASIR_ASSIGN_OR_RETURN(recordings_[rows], device_.Record([this] { Execute(); }));
  }
  return absl::OkStatus();
}

// ---- A step ----

DeviceRunner::Shape DeviceRunner::ShapeOf(const Batch& batch) const {
  return {rows_.size(),
          rows_.logit_rows,
          static_cast<int64_t>(rows_.outputs.size()),
          static_cast<int64_t>(tiles_.size()),
          std::count_if(tiles_.begin(), tiles_.end(), [](const auto& t) { return t.rows == 1; }),
          static_cast<int64_t>(batch.sequences.size())};
}

DeviceRunner::Shape DeviceRunner::PaddedDecodes(int64_t rows) const {
  return {rows, rows, rows, rows, rows, rows};
}

int64_t DeviceRunner::RecordedRows(const Batch& batch) const {
  const auto decodes = [](const BatchSequence& s) { return s.tokens.size() == 1 && s.logits == 1; };
  if (!std::all_of(batch.sequences.begin(), batch.sequences.end(), decodes)) return 0;
  const auto it = recordings_.lower_bound(static_cast<int64_t>(batch.sequences.size()));
  return it == recordings_.end() ? 0 : it->first;
}

// Rows that compute nothing that counts, over all of the step's shape.
void DeviceRunner::FillPadding() {
  int32_t* const host = host_input_.as<int32_t>();
  std::fill_n(host, shape_.tables() + 1, 0);
  std::fill_n(host + shape_.positions(), shape_.rows, -1);
  device_.CopyIn(input_.bytes(), host, (shape_.tables() + 1) * sizeof(int32_t));
}

void DeviceRunner::CopyInputs(const Batch& batch) {
  int32_t* const host = host_input_.as<int32_t>();
  std::fill_n(host, shape_.tables(), 0);
  std::fill_n(host + shape_.positions(), shape_.rows, -1);
  std::copy(rows_.tokens.begin(), rows_.tokens.end(), host + shape_.tokens());
  std::copy(rows_.positions.begin(), rows_.positions.end(), host + shape_.positions());
  std::copy(rows_.sequences.begin(), rows_.sequences.end(), host + shape_.sequence_of());
  std::copy(rows_.outputs.begin(), rows_.outputs.end(), host + shape_.outputs());
  static_assert(sizeof(ops::AttentionTile) == 2 * sizeof(int32_t));
  std::memcpy(host + shape_.tile_at(), tiles_.data(), tiles_.size() * sizeof(tiles_[0]));
  int32_t begin = 0;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const absl::Span<const BlockId> blocks = batch.sequences[s].blocks;
    host[shape_.table_begins() + s] = begin;
    std::copy(blocks.begin(), blocks.end(), host + shape_.tables() + begin);
    begin += static_cast<int32_t>(blocks.size());
  }
  device_.CopyIn(input_.bytes(), host, (shape_.tables() + begin) * sizeof(int32_t));
}

Status DeviceRunner::Run(const Batch& batch, const BatchOutput& output) {
  KVASIR_RETURN_IF_ERROR(CheckBatch(plan_, num_blocks_, batch, output));
  rows_.Set(batch);
  tiles_.clear();
  const int32_t tile_rows = ops::kTileQueries / group_;
  int32_t first_row = 0;
  for (const BatchSequence& sequence : batch.sequences) {
    const int32_t count = static_cast<int32_t>(sequence.tokens.size());
    for (int32_t begin = 0; begin < count; begin += tile_rows) {
      tiles_.push_back({first_row + begin, std::min(tile_rows, count - begin)});
    }
    first_row += count;
  }
  std::stable_partition(tiles_.begin(), tiles_.end(), [](const auto& t) { return t.rows == 1; });

  for (const BlockCopy& copy : batch.copies) {
    device_.CopyWithin(Block(copy.to), Block(copy.from), block_bytes());
  }
  if (batch.sequences.empty()) return device_.Synchronize();
  shape_ = ShapeOf(batch);
  KVASIR_RETURN_IF_ERROR(EnsureOutputs(shape_.logit_rows, shape_.output_rows - shape_.logit_rows));
  int64_t blocks = 0;
  for (const BatchSequence& s : batch.sequences) blocks += static_cast<int64_t>(s.blocks.size());
  KVASIR_RETURN_IF_ERROR(EnsureInput(blocks));
  if (recordings_.empty()) KVASIR_RETURN_IF_ERROR(RecordDecodes());
  shape_ = ShapeOf(batch);
  if (const int64_t recorded = RecordedRows(batch); recorded > 0) {
    shape_ = PaddedDecodes(recorded);
    CopyInputs(batch);
    device_.Replay(*recordings_.at(recorded));
  } else {
    CopyInputs(batch);
    Execute();
  }
  return TakeOutputs(batch, output);
}

// From all rows of logits, those too whose token nobody wants.
void DeviceRunner::Draw(const Batch& batch) {
  ops::DeviceDraw* const draws = host_draws_.as<ops::DeviceDraw>();
  int64_t rows = 0;
  for (const BatchSequence& s : batch.sequences) {
    const RowDraw draw = s.draw.value_or(RowDraw{});
    std::fill_n(
        draws + rows, s.logits,
        ops::DeviceDraw{draw.temperature, draw.min_weight, draw.top_k, draw.top_p, draw.noise});
    rows += s.logits;
  }
  device_.CopyIn(draws_.bytes(), draws, rows * sizeof(ops::DeviceDraw));
  kernels_.Draw(rows, {logits_.bytes(), false, plan_.vocab, plan_.vocab},
                draws_.as<ops::DeviceDraw>(), drawn_.as<int32_t>());
  device_.CopyOut(host_drawn_.bytes(), drawn_.bytes(), rows * sizeof(int32_t));
}

Status DeviceRunner::TakeOutputs(const Batch& batch, const BatchOutput& output) {
  // Rows of logits that are drawn from are left where they are.
  const int64_t row_bytes = int64_t{plan_.vocab} * sizeof(float);
  int64_t row = 0, wanted = 0;
  for (const BatchSequence& s : batch.sequences) {
    if (!s.draw) {
      for (int64_t r = 0; r < s.logits; ++r, ++wanted) {
        device_.CopyOut(host_logits_.bytes() + wanted * row_bytes,
                        logits_.bytes() + (row + r) * row_bytes, row_bytes);
      }
    }
    row += s.logits;
  }
  if (!output.drawn.empty()) Draw(batch);
  const int64_t hidden_bytes = static_cast<int64_t>(output.hidden.size() * sizeof(float));
  if (hidden_bytes > 0) device_.CopyOut(host_hidden_.bytes(), hidden_.bytes(), hidden_bytes);
  KVASIR_RETURN_IF_ERROR(device_.Synchronize());
  if (wanted > 0) std::memcpy(output.logits.data(), host_logits_.bytes(), wanted * row_bytes);
  if (hidden_bytes > 0) std::memcpy(output.hidden.data(), host_hidden_.bytes(), hidden_bytes);
  row = 0;
  size_t at = 0;
  for (const BatchSequence& s : batch.sequences) {
    for (int64_t r = 0; s.draw && r < s.logits; ++r) {
      output.drawn[at++] = host_drawn_.as<int32_t>()[row + r];
    }
    row += s.logits;
  }
  return absl::OkStatus();
}

device::Transfer DeviceRunner::CopyOut(absl::Span<const HostBlock> blocks) {
  pieces_.clear();
  for (const auto& [block, host] : blocks) pieces_.push_back({host, Block(block), block_bytes()});
  return device_.TransferOut(pieces_);
}

device::Transfer DeviceRunner::CopyIn(absl::Span<const HostBlock> blocks) {
  pieces_.clear();
  for (const auto& [block, host] : blocks) pieces_.push_back({Block(block), host, block_bytes()});
  return device_.TransferIn(pieces_);
}

uint8_t* DeviceRunner::Block(BlockId block) const {
  KVASIR_CHECK(0 <= block && block < num_blocks_, "the block exists");
  return blocks_.bytes() + block * block_bytes();
}

// ---- Nodes ----

void DeviceRunner::Execute() {
  device_batch_ = {Input(shape_.tokens()), Input(shape_.positions()), Input(shape_.sequence_of()),
                   Input(shape_.table_begins()), Input(shape_.tables())};
  for (const PlanNode& node : plan_.nodes) Execute(node);
}

void DeviceRunner::Execute(const PlanNode& node) {
  if (RowCount(node.output) == 0) return;
  switch (node.op) {
    case Op::kEmbed:
      return kernels_.Embed(device_batch_, shape_.rows, embedding_.as<uint16_t>(), node.scale,
                            Output(node));
    case Op::kRmsNorm:
      return Norm(node);
    case Op::kMatmul:
      return Matmul(node);
    case Op::kRopeKvWrite:
      return RopeKvWrite(node);
    case Op::kAttention:
      return Attention(node);
    case Op::kGated:
      return kernels_.Gated(RowCount(node.output), Matrix(node.inputs[0]), Matrix(node.inputs[1]),
                            Output(node));
    case Op::kQuantize:
      return kernels_.Convert(RowCount(node.output), Matrix(node.inputs[0]), Output(node));
    case Op::kSelectRows:
      return kernels_.SelectRows(shape_.output_rows, Input(shape_.outputs()),
                                 Matrix(node.inputs[0]), Output(node));
    default:
      return;  // CheckPlan lets no other in
  }
}

void DeviceRunner::Norm(const PlanNode& node) {
  ops::DeviceMatrix x = Matrix(node.inputs[0]);
  const float* weight = vectors_[node.vector].as<float>();
  kernels_.RmsNorm(RowCount(node.output), x, weight, plan_.rms_eps, node.head_width, Output(node));
  const bool final = plan_.values[node.output].rows == Rows::kOutput;
  const int64_t hidden_rows = shape_.output_rows - shape_.logit_rows;
  if (!final || hidden_rows == 0) return;
  // What the final norm gives, before it is rounded for the head.
  x.data += shape_.logit_rows * x.stride * (x.bf16 ? 2 : 4);
  kernels_.RmsNorm(hidden_rows, x, weight, plan_.rms_eps, node.head_width,
                   {hidden_.bytes(), false, plan_.hidden, plan_.hidden});
}

void DeviceRunner::Matmul(const PlanNode& node) {
  ops::DeviceMatmul args;
  args.rows = RowCount(node.output);
  args.x = Matrix(node.inputs[0]);
  args.weights = matrices_[node.matrix].as<uint16_t>();
  args.bias = node.bias >= 0 ? vectors_[node.bias].as<float>() : nullptr;
  args.out = Output(node);
  args.accumulate = node.residual;
  kernels_.Matmul(args);
}

void DeviceRunner::RopeKvWrite(const PlanNode& node) {
  ops::DeviceRope args;
  args.rows = shape_.rows;
  args.q = Matrix(node.inputs[0]);
  args.k = Matrix(node.inputs[1]);
  args.v = Matrix(node.inputs[2]);
  args.out = Output(node);
  args.scale = node.scale;
  args.cosines = rotations_[node.table].cosines.as<float>();
  args.sines = rotations_[node.table].sines.as<float>();
  args.width = plan_.rotations[node.table].width;
  kernels_.RopeKvWrite(device_batch_, args, KvOf(node.layer));
}

void DeviceRunner::Attention(const PlanNode& node) {
  ops::DeviceAttention args;
  args.q = Matrix(node.inputs[0]);
  args.out = Output(node);
  args.heads = plan_.heads;
  args.tiles = reinterpret_cast<const ops::AttentionTile*>(Input(shape_.tile_at()));
  args.single_tiles = static_cast<int32_t>(shape_.single_tiles);
  args.all_tiles = static_cast<int32_t>(shape_.tiles);
  kernels_.Attention(device_batch_, args, KvOf(node.layer));
}

int64_t DeviceRunner::RowCount(ValueId value) const {
  if (value == plan_.logits) return shape_.logit_rows;
  return plan_.values[value].rows == Rows::kOutput ? shape_.output_rows : shape_.rows;
}

ops::DeviceMatrix DeviceRunner::Matrix(const Operand& operand) const {
  const graph::Value& value = plan_.values[operand.value];
  if (operand.value == plan_.logits) return {logits_.bytes(), false, value.width, value.width};
  const bool bf16 = value.type == ValueType::kBf16;
  return {arena_.bytes() + plan_.offsets[operand.value] + int64_t{operand.column} * (bf16 ? 2 : 4),
          bf16, value.width, operand.width};
}

ops::DeviceMatrix DeviceRunner::Output(const PlanNode& node) const {
  return Matrix({node.output, 0, plan_.values[node.output].width});
}

// Blocks as plan::KvLayout says, but for K, which lies by rows like V.
ops::DeviceKv DeviceRunner::KvOf(int32_t layer) const {
  const plan::KvLayout& kv = plan_.kv;
  return {blocks_.bytes(), kv.block_bytes(), layer * kv.layer_bytes(),
          kv.head_bytes(), kv.k_bytes(),     kv.block_size,
          kv.kv_heads,     kv.k_dim};
}

}  // namespace kvasir::runtime
