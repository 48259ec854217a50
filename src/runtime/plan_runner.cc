#include "runtime/plan_runner.h"

#include <algorithm>
#include <cstring>

#include <absl/container/inlined_vector.h>

#include "base/float16.h"
#include "runtime/check_batch.h"

namespace kvasir::runtime {
namespace {

using graph::Op;
using graph::Operand;
using graph::Rows;
using graph::ValueId;
using graph::ValueType;
using plan::PlanNode;

// Below this much work a loop is not worth waking another thread.
constexpr int64_t kSerialElements = 8192;
constexpr int64_t kMatmulRows = 128;  // rows of activations that a tile of a product takes

ops::GateArgs GateArgsOf(const graph::Gate& gate) {
  switch (gate.kind) {
    case graph::GateKind::kSilu:
      return {ops::GateOp::kSilu};
    case graph::GateKind::kGelu:
      return {ops::GateOp::kGelu};
    case graph::GateKind::kClamped:
      return {ops::GateOp::kClamped, gate.alpha, gate.limit};
  }
  return {};
}

// The panels of the `part`-th of the equal matrices that are stacked in `whole`.
ops::PanelView PartOf(const ops::PanelView& whole, int32_t part, int32_t parts) {
  ops::PanelView out = whole;
  out.rows = whole.rows / parts;
  out.panels = whole.panels / parts;
  out.data = whole.panel(part * out.panels);
  return out;
}

}  // namespace

StatusOr<std::unique_ptr<PlanRunner>> PlanRunner::Create(plan::Plan plan, int32_t num_blocks,
                                                         std::unique_ptr<ThreadPool> pool) {
  if (plan.activations == "bf16") {
    return absl::FailedPreconditionError("the plan was compiled for a device, not for CPUs");
  }
  std::unique_ptr<PlanRunner> out(new PlanRunner(std::move(plan), num_blocks, std::move(pool)));
  KVASIR_ASSIGN_OR_RETURN(out->arena_, device::Buffer::Allocate(out->plan_.arena_bytes));
  KVASIR_ASSIGN_OR_RETURN(out->attention_,
                          PagedAttention::Create(out->plan_, num_blocks, *out->pool_));
  return out;
}

PlanRunner::PlanRunner(plan::Plan plan, int32_t num_blocks, std::unique_ptr<ThreadPool> pool)
    : plan_(std::move(plan)), num_blocks_(num_blocks), pool_(std::move(pool)) {
  int64_t widest = 0;
  for (const graph::Value& value : plan_.values) widest = std::max<int64_t>(widest, value.width);
  for (const PlanNode& node : plan_.nodes) {
    if (node.op != Op::kRoute) continue;
    widest = std::max<int64_t>(widest, 3 * int64_t{node.routing.experts});  // RouteArgs::scratch
  }
  scratch_floats_ = widest + 64;
  scratch_.resize(scratch_floats_ * pool_->threads());
}

Status PlanRunner::Run(const Batch& batch, const BatchOutput& output) {
  KVASIR_RETURN_IF_ERROR(CheckBatch(plan_, num_blocks_, batch, output));
  if (!output.drawn.empty()) return absl::InternalError("batch: rows of logits only are here");
  logits_ = output.logits.data();
  hidden_ = output.hidden.data();
  rows_.Set(batch);
  attention_->SetBatch(batch, rows_);
  if (batch.sequences.empty()) return absl::OkStatus();
  for (const PlanNode& node : plan_.nodes) Execute(node);
  return absl::OkStatus();
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
    case Op::kActivate:
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
    case Op::kGated:
      return Gated(node);
    case Op::kSplitHeads:
      return SplitHeads(node);
    case Op::kJoinHeads:
      return JoinHeads(node);
    case Op::kRoute:
      return Route(node);
    case Op::kDispatch:
      return Dispatch(node);
    case Op::kCombine:
      return Combine(node);
    case Op::kGroupedMatmul:
      return GroupedMatmul(node);
    case Op::kRopeKvWrite:
      return RopeKvWrite(node);
  }
}

// ---- Values ----

template <typename Body>
void PlanRunner::ForRows(ValueId value, int64_t cost, const Body& body) {
  const int64_t rows = RowCount(value);
  const int64_t chunk = std::max<int64_t>(1, kSerialElements / std::max<int64_t>(cost, 1));
  pool_->ParallelFor((rows + chunk - 1) / chunk, [&](int64_t tile, int thread) {
    for (int64_t r = tile * chunk; r < std::min(rows, (tile + 1) * chunk); ++r) body(r, thread);
  });
}

int64_t PlanRunner::RowCount(ValueId value) const {
  if (value == plan_.logits) return rows_.logit_rows;
  const graph::Value& v = plan_.values[value];
  if (v.rows == Rows::kOutput) return static_cast<int64_t>(rows_.outputs.size());
  return rows_.size() * v.copies;
}

float* PlanRunner::Floats(ValueId value) {
  if (value == plan_.logits) return logits_;
  return reinterpret_cast<float*>(arena_.bytes() + plan_.offsets[value]);
}

const float* PlanRunner::Row(const Operand& operand, int64_t row) {
  return Floats(operand.value) + row * plan_.values[operand.value].width + operand.column;
}

float* PlanRunner::OutputRow(const PlanNode& node, int64_t row) {
  return Floats(node.output) + row * plan_.values[node.output].width;
}

ops::QuantizedRows PlanRunner::QuantizedValue(ValueId value) {
  const graph::Value& v = plan_.values[value];
  const int64_t rows =
      v.rows == Rows::kOutput ? plan_.max_output_rows : int64_t{plan_.max_batch_tokens} * v.copies;
  return ops::QuantizedRows::At(arena_.bytes() + plan_.offsets[value], rows, v.width);
}

// Stores a float row in whatever type the value has.
void PlanRunner::WriteRow(ValueId value, int64_t row, const float* x) {
  const graph::Value& v = plan_.values[value];
  switch (v.type) {
    case ValueType::kFloat: {
      float* out = Floats(value) + row * v.width;
      if (out != x) std::memcpy(out, x, sizeof(float) * v.width);
      return;
    }
    case ValueType::kQuantized:
      return plan_.kernels->quantize(x, row, QuantizedValue(value));
    case ValueType::kBf16: {
      uint16_t* out =
          reinterpret_cast<uint16_t*>(arena_.bytes() + plan_.offsets[value]) + row * v.width;
      return plan_.kernels->round_bf16(x, v.width, out);
    }
  }
}

// ---- Ops of single rows ----

void PlanRunner::Embed(const PlanNode& node) {
  const plan::EmbeddingTable& table = plan_.embedding;
  const DTypeInfo info = Info(table.dtype);
  const int64_t row_bytes = table.cols / info.block_elements * info.block_bytes;
  ForRows(node.output, table.cols, [&](int64_t r, int) {
    float* out = OutputRow(node, r);
    ops::DequantizeRow(table.dtype, table.data + rows_.tokens[r] * row_bytes, table.cols, out);
    if (node.scale == 1.0f) return;
    for (int64_t i = 0; i < table.cols; ++i) out[i] *= node.scale;
  });
}

void PlanRunner::SelectRows(const PlanNode& node) {
  const int32_t width = node.inputs[0].width;
  for (size_t i = 0; i < rows_.outputs.size(); ++i) {
    std::memcpy(OutputRow(node, i), Row(node.inputs[0], rows_.outputs[i]), sizeof(float) * width);
  }
}

void PlanRunner::RmsNorm(const PlanNode& node) {
  const Operand& x = node.inputs[0];
  const float* weight = plan_.vectors[node.vector].data();
  const int32_t width = node.head_width > 0 ? node.head_width : x.width;
  const auto normalize = [&](int64_t r, float* out) {
    for (int32_t at = 0; at < x.width; at += width) {
      plan_.kernels->rms_norm(Row(x, r) + at, weight, plan_.rms_eps, width, out + at);
    }
  };
  const bool final = plan_.values[node.output].rows == Rows::kOutput;
  ForRows(node.output, x.width, [&](int64_t r, int thread) {
    if (final && r >= rows_.logit_rows) {
      // What the final norm gives, before it is rounded for the head.
      return normalize(r, hidden_ + (r - rows_.logit_rows) * x.width);
    }
    normalize(r, Scratch(thread));
    WriteRow(node.output, r, Scratch(thread));
  });
}

void PlanRunner::Gated(const PlanNode& node) {
  const int32_t width = node.inputs[0].width;
  const ops::GateArgs gate = GateArgsOf(node.gate);
  ForRows(node.output, 4 * width, [&](int64_t r, int thread) {
    plan_.kernels->gated(gate, Row(node.inputs[0], r), Row(node.inputs[1], r), width,
                         Scratch(thread));
    WriteRow(node.output, r, Scratch(thread));
  });
}

// The ops of graphs that were not fused.
void PlanRunner::Elementwise(const PlanNode& node) {
  const int32_t width = node.inputs[0].width;
  const std::vector<float> ones(width, 1.0f);
  const ops::GateArgs gate = GateArgsOf(node.gate);
  ForRows(node.output, width, [&](int64_t r, int) {
    const float* a = Row(node.inputs[0], r);
    const float* b = node.inputs.size() > 1 ? Row(node.inputs[1], r) : ones.data();
    float* out = OutputRow(node, r);
    if (node.op == Op::kActivate) return plan_.kernels->gated(gate, a, b, width, out);
    for (int32_t i = 0; i < width; ++i) {
      out[i] = node.op == Op::kScale ? a[i] * node.scale
               : node.op == Op::kMul ? a[i] * b[i]
                                     : a[i] + b[i];
    }
  });
}

void PlanRunner::Quantize(const PlanNode& node) {
  const int32_t width = node.inputs[0].width;
  ForRows(node.output, width, [&](int64_t r, int thread) {
    const float* x = Row(node.inputs[0], r);
    if (node.order < 0) return WriteRow(node.output, r, x);
    const std::vector<int32_t>& order = plan_.orders[node.order];
    float* ordered = Scratch(thread);
    for (int32_t i = 0; i < width; ++i) ordered[i] = x[order[i]];
    WriteRow(node.output, r, ordered);
  });
}

// ---- Products ----

void PlanRunner::Matmul(const PlanNode& node) {
  const int64_t rows = RowCount(node.output == plan_.logits ? node.output : node.inputs[0].value);
  if (observer_) ShowInput(node, rows);
  const RowRange all{0, 0, rows};
  Multiply(node, {&all, 1});
  if (node.softcap == 0.0f) return;
  const int32_t width = plan_.values[node.output].width;
  ForRows(node.output, 4 * width,
          [&](int64_t r, int) { plan_.kernels->softcap(node.softcap, width, OutputRow(node, r)); });
}

void PlanRunner::ShowInput(const PlanNode& node, int64_t rows) {
  const ValueId value = node.inputs[0].value;
  const int64_t width = plan_.values[value].width;
  std::vector<float> floats;
  if (plan_.values[value].type == ValueType::kQuantized) {
    const ops::QuantizedRows quantized = QuantizedValue(value);
    floats.resize(rows * width);
    for (size_t i = 0; i < floats.size(); ++i) {
      floats[i] = static_cast<float>(quantized.q[i]) * quantized.scale[i / ops::kGroup];
    }
  } else if (plan_.values[value].type == ValueType::kBf16) {
    const auto* bf16 = reinterpret_cast<const Bf16*>(arena_.bytes() + plan_.offsets[value]);
    floats.resize(rows * width);
    for (size_t i = 0; i < floats.size(); ++i) floats[i] = ToFloat(bf16[i]);
  }
  observer_(&node - plan_.nodes.data(), floats.empty() ? Floats(value) : floats.data(), rows);
}

void PlanRunner::GroupedMatmul(const PlanNode& node) {
  std::vector<RowRange> ranges;
  const bool heads = plan_.values[node.inputs[0].value].rows == Rows::kHeads;
  for (int32_t part = 0; part < node.parts; ++part) {
    const int64_t begin = heads ? part * rows_.size() : expert_rows_.begin(part);
    const int64_t end = heads ? begin + rows_.size() : expert_rows_.begin(part + 1);
    if (begin < end) ranges.push_back({part, begin, end});
  }
  Multiply(node, ranges);
}

void PlanRunner::Multiply(const PlanNode& node, absl::Span<const RowRange> ranges) {
  const graph::Value& input = plan_.values[node.inputs[0].value];
  ops::MatmulArgs args;
  const ops::PanelView& weights = plan_.matrices[node.matrix].view;
  switch (input.type) {
    case ValueType::kFloat:
      args.floats = Floats(node.inputs[0].value);
      break;
    case ValueType::kQuantized:
      args.quantized = QuantizedValue(node.inputs[0].value);
      break;
    case ValueType::kBf16:
      args.bf16 =
          reinterpret_cast<const uint16_t*>(arena_.bytes() + plan_.offsets[node.inputs[0].value]);
      break;
  }
  args.out = Floats(node.output);
  args.out_stride = plan_.values[node.output].width;
  args.accumulate = node.residual;

  absl::InlinedVector<RowRange, 16> row_tiles;  // no allocation for a step of decodes
  for (const RowRange& range : ranges) {
    for (int64_t begin = range.begin; begin < range.end; begin += kMatmulRows) {
      row_tiles.push_back({range.part, begin, std::min(range.end, begin + kMatmulRows)});
    }
  }
  if (row_tiles.empty()) return;
  const int64_t panels = weights.panels / node.parts;
  const int64_t wanted =
      std::max<int64_t>(1, 6 * pool_->threads() / static_cast<int64_t>(row_tiles.size()));
  const int64_t chunk = std::clamp<int64_t>((panels + wanted - 1) / wanted, 1, 64);
  const int64_t panel_tiles = (panels + chunk - 1) / chunk;
  pool_->ParallelFor(row_tiles.size() * panel_tiles, [&](int64_t tile, int) {
    const RowRange& rows = row_tiles[tile / panel_tiles];
    ops::MatmulArgs part = args;
    part.weights = PartOf(weights, rows.part, node.parts);
    if (node.bias >= 0) {
      part.bias = plan_.vectors[node.bias].data() + rows.part * part.weights.rows;
    }
    part.panel_begin = tile % panel_tiles * chunk;
    part.panel_end = std::min(panels, part.panel_begin + chunk);
    part.row_begin = rows.begin;
    part.row_end = rows.end;
    plan_.kernels->matmul(part);
  });
}

// ---- Attention ----

// The half-split rotation of Su et al., RoFormer: (a, b) -> (a cos - b sin, a sin + b cos).
void PlanRunner::RotateHead(const PlanNode& node, const float* x, int64_t position, float scale,
                            float* out) const {
  const plan::Rotation& rotation = plan_.rotations[node.table];
  const int32_t half = rotation.width / 2;
  const float* cosines = rotation.cosines.data() + position * half;
  const float* sines = rotation.sines.data() + position * half;
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    out[i] = (a * cosines[i] - b * sines[i]) * scale;
    out[i + half] = (a * sines[i] + b * cosines[i]) * scale;
  }
  for (int32_t i = rotation.width; i < node.head_width; ++i) out[i] = x[i] * scale;
}

void PlanRunner::Rope(const PlanNode& node) {
  const int32_t width = node.inputs[0].width;
  ForRows(node.output, width, [&](int64_t r, int) {
    // (Rows of heads are head by head, each of all tokens.)
    const int64_t position = rows_.positions[r % rows_.size()];
    for (int32_t at = 0; at < width; at += node.head_width) {
      RotateHead(node, Row(node.inputs[0], r) + at, position, 1.0f, OutputRow(node, r) + at);
    }
  });
}

void PlanRunner::KvWrite(const PlanNode& node) {
  const plan::KvLayout& kv = plan_.kv;
  const Operand& k = node.inputs[0];
  const Operand& v = node.inputs[1];
  ForRows(k.value, k.width, [&](int64_t r, int) {
    if (kv.v_in_k) {  // the latent, which is V, and the rest of K
      attention_->StoreV(r, node.layer, 0, Row(k, r));
      attention_->StoreK(r, node.layer, 0, Row(v, r));
      return;
    }
    for (int32_t head = 0; head < kv.kv_heads; ++head) {
      attention_->StoreK(r, node.layer, head, Row(k, r) + head * kv.k_dim);
      attention_->StoreV(r, node.layer, head, Row(v, r) + head * kv.v_dim);
    }
  });
}

void PlanRunner::RopeKvWrite(const PlanNode& node) {
  const plan::KvLayout& kv = plan_.kv;
  const int32_t width = node.inputs[0].width;
  ForRows(node.output, width, [&](int64_t r, int thread) {
    const int64_t position = rows_.positions[r];
    for (int32_t at = 0; at < width; at += kv.k_dim) {
      RotateHead(node, Row(node.inputs[0], r) + at, position, node.scale, OutputRow(node, r) + at);
    }
    for (int32_t head = 0; head < kv.kv_heads; ++head) {
      RotateHead(node, Row(node.inputs[1], r) + head * kv.k_dim, position, 1.0f, Scratch(thread));
      attention_->StoreK(r, node.layer, head, Scratch(thread));
      attention_->StoreV(r, node.layer, head, Row(node.inputs[2], r) + head * kv.v_dim);
    }
  });
}

void PlanRunner::Attention(const PlanNode& node) {
  const Operand& q = node.inputs[0];
  attention_->Run(node, Row(q, 0), plan_.values[q.value].width, OutputRow(node, 0),
                  plan_.values[node.output].width);
}

void PlanRunner::SplitHeads(const PlanNode& node) {
  const int32_t width = plan_.values[node.output].width;
  ForRows(node.output, width, [&](int64_t r, int) {
    const int64_t head = r / rows_.size();
    const float* x = Row(node.inputs[0], r % rows_.size()) + head * node.head_width + node.column;
    std::memcpy(OutputRow(node, r), x, sizeof(float) * width);
  });
}

void PlanRunner::JoinHeads(const PlanNode& node) {
  const int32_t heads = plan_.values[node.inputs[0].value].copies;
  ForRows(node.output, plan_.values[node.output].width, [&](int64_t r, int) {
    float* out = OutputRow(node, r);
    for (int32_t head = 0; head < heads; ++head) {
      for (const Operand& in : node.inputs) {
        out = std::copy_n(Row(in, head * rows_.size() + r), in.width, out);
      }
    }
  });
}

// ---- Experts ----

void PlanRunner::Route(const PlanNode& node) {
  const graph::Routing& routing = node.routing;
  ForRows(node.output, 8 * routing.experts, [&](int64_t r, int thread) {
    ops::RouteArgs args;
    args.experts = routing.experts;
    args.used = routing.used;
    args.groups = routing.groups;
    args.groups_used = routing.groups_used;
    args.sigmoid = routing.score == graph::Routing::Score::kSigmoid;
    args.normalize = routing.normalize;
    args.scale = routing.scale;
    args.bias = node.vector >= 0 ? plan_.vectors[node.vector].data() : nullptr;
    args.scores = Row(node.inputs[0], r);
    args.scratch = Scratch(thread);
    args.out = OutputRow(node, r);
    plan_.kernels->route(args);
  });
}

void PlanRunner::Dispatch(const PlanNode& node) {
  const Operand& x = node.inputs[0];
  const int32_t used = plan_.values[node.output].copies;
  expert_rows_.Set(Row(node.inputs[1], 0), plan_.values[node.inputs[1].value].width, rows_.size(),
                   used, node.routing.experts);
  ForRows(x.value, int64_t{x.width} * used, [&](int64_t token, int) {
    for (int32_t rank = 0; rank < used; ++rank) {
      std::memcpy(OutputRow(node, expert_rows_.row(token, rank)), Row(x, token),
                  sizeof(float) * x.width);
    }
  });
}

void PlanRunner::Combine(const PlanNode& node) {
  const Operand& y = node.inputs[0];
  const int32_t used = plan_.values[y.value].copies;
  ForRows(node.output, int64_t{y.width} * used, [&](int64_t token, int) {
    float* out = OutputRow(node, token);
    std::fill_n(out, y.width, 0.0f);
    for (int32_t rank = 0; rank < used; ++rank) {
      const float weight = Row(node.inputs[1], token)[2 * rank + 1];
      const float* part = Row(y, expert_rows_.row(token, rank));
      for (int32_t i = 0; i < y.width; ++i) out[i] += weight * part[i];
    }
  });
}

}  // namespace kvasir::runtime
