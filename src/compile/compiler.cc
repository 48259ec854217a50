#include "compile/compiler.h"

#include <cmath>
#include <map>

#include <fmt/format.h>

#include "compile/memory_plan.h"
#include "compile/passes.h"
#include "core/block_hash.h"
#include "model/architecture.h"
#include "model/rope.h"

namespace kvasir::compile {
namespace {

using graph::Graph;
using graph::Node;
using graph::Op;
using graph::ValueType;
using model::Checkpoint;
using model::TensorView;
using ops::PanelFormat;
using plan::Plan;

// The panel format of a weight under the options.
PanelFormat FormatFor(const TensorView& tensor, const CompileOptions& options) {
  const PanelFormat stored = ops::PanelFormatOf(tensor.dtype);
  if (options.activations == Activations::kF32) {
    return ops::IsQuantized(stored) ? PanelFormat::kF32 : stored;
  }
  if (stored == PanelFormat::kBf16 && options.kernels->bf16_pairs) return PanelFormat::kBf16Pairs;
  return stored;
}

ValueType ActivationFor(PanelFormat format) {
  if (ops::IsQuantized(format)) return ValueType::kQuantized;
  return format == PanelFormat::kBf16Pairs ? ValueType::kBf16 : ValueType::kFloat;
}

void RunPasses(Graph& graph, const Checkpoint& checkpoint, const CompileOptions& options) {
  const auto format = [&](const std::string& weight) {
    return FormatFor(*checkpoint.Find(weight), options);
  };
  const auto activation = [&](const std::string& weight) { return ActivationFor(format(weight)); };
  if (options.fuse) {
    FuseRopeKvWrite(graph);
    FuseSharedInput(
        graph, [&](const std::string& a, const std::string& b) { return format(a) == format(b); });
    FuseGate(graph);
    FoldScales(graph);
    FuseResidual(graph);
  }
  InsertQuantize(graph, activation);
  if (options.fuse) FuseQuantize(graph);
  RemoveDeadNodes(graph);
}

ops::MatrixSource SourceOf(const TensorView& t) {
  return {t.dtype,
          t.rows,
          t.cols,
          t.bytes.data(),
          t.row_stride,
          t.col_stride,
          {t.interleaved.stride, t.interleaved.begin, t.interleaved.width}};
}

StatusOr<std::vector<float>> LoadVector(const Checkpoint& checkpoint, const std::string& name) {
  const TensorView& tensor = *checkpoint.Find(name);
  if (IsQuantized(tensor.dtype)) {
    return absl::UnimplementedError(fmt::format(
        "tensor '{}' is a vector of type {}: float types can be", name, Info(tensor.dtype).name));
  }
  std::vector<float> stored(tensor.cols), out(tensor.cols);
  const ops::MatrixSource source = SourceOf(tensor);
  ops::LoadRow(source, 0, stored.data());
  for (int64_t i = 0; i < tensor.cols; ++i) out[i] = stored[ops::StoredRow(source.interleaved, i)];
  return out;
}

// Turns graph nodes into plan nodes, packing what they name.
class Packer {
 public:
  Packer(const Checkpoint& checkpoint, const CompileOptions& options, ThreadPool& pool, Plan& plan)
      : checkpoint_(checkpoint), options_(options), pool_(pool), plan_(plan) {}

  Status Add(const Node& node) {
    plan::PlanNode out;
    out.op = node.op;
    out.inputs = node.inputs;
    out.output = node.outputs.empty() ? -1 : node.outputs[0];
    out.layer = node.layer;
    out.scale = node.scale;
    out.residual = node.residual;
    out.parts = node.parts;
    out.head_width = node.head_width;
    out.column = node.column;
    out.table = node.table;
    out.window = node.window;
    out.softcap = node.softcap;
    out.gate = node.gate;
    out.routing = node.routing;
    if (node.op == Op::kMatmul || node.op == Op::kGroupedMatmul) {
      KVASIR_ASSIGN_OR_RETURN(out.matrix, AddMatrix(node.weights));
      KVASIR_ASSIGN_OR_RETURN(out.bias, AddBias(node));
    }
    if (node.op == Op::kRmsNorm) {
      KVASIR_ASSIGN_OR_RETURN(auto weight, LoadVector(checkpoint_, node.weights[0]));
      for (float& w : weight) w += node.offset;
      out.vector = AddVector(std::move(weight));
    }
    const bool has_vector = node.op == Op::kAttention || node.op == Op::kRoute;
    if (has_vector && !node.weights.empty()) {
      KVASIR_ASSIGN_OR_RETURN(auto values, LoadVector(checkpoint_, node.weights[0]));
      out.vector = AddVector(std::move(values));
    }
    plan_.nodes.push_back(std::move(out));
    return absl::OkStatus();
  }

 private:
  StatusOr<int32_t> AddMatrix(const std::vector<std::string>& weights) {
    std::vector<ops::MatrixSource> sources;
    for (const std::string& name : weights) {
      sources.push_back(SourceOf(*checkpoint_.Find(name)));
    }
    const PanelFormat format = FormatFor(*checkpoint_.Find(weights[0]), options_);
    KVASIR_ASSIGN_OR_RETURN(ops::PackedMatrix matrix, ops::Pack(sources, format, pool_));
    plan_.matrices.push_back(std::move(matrix));
    return static_cast<int32_t>(plan_.matrices.size()) - 1;
  }

  StatusOr<int32_t> AddBias(const Node& node) {
    std::vector<float> bias;
    bool any = false;
    for (size_t i = 0; i < node.weights.size(); ++i) {
      const int64_t rows = checkpoint_.Find(node.weights[i])->rows;
      if (node.biases[i].empty()) {
        bias.resize(bias.size() + rows, 0.0f);
        continue;
      }
      any = true;
      KVASIR_ASSIGN_OR_RETURN(auto part, LoadVector(checkpoint_, node.biases[i]));
      bias.insert(bias.end(), part.begin(), part.end());
    }
    return any ? AddVector(std::move(bias)) : -1;
  }

  int32_t AddVector(std::vector<float> values) {
    plan_.vectors.push_back(std::move(values));
    return static_cast<int32_t>(plan_.vectors.size()) - 1;
  }

  const Checkpoint& checkpoint_;
  const CompileOptions& options_;
  ThreadPool& pool_;
  Plan& plan_;
};

plan::Rotation MakeRotation(const model::RopeConfig& rope, const model::ModelConfig& config,
                            int32_t max_model_len) {
  const model::RopeTable table = model::MakeRopeTable(rope, max_model_len, config.context_length);
  const size_t half = table.frequencies.size();
  plan::Rotation out;
  out.width = rope.width;
  out.cosines.resize(max_model_len * half);
  out.sines.resize(out.cosines.size());
  for (size_t i = 0; i < half; ++i) {
    for (int64_t position = 0; position < max_model_len; ++position) {
      const double angle = static_cast<double>(position) * table.frequencies[i];
      out.cosines[position * half + i] = static_cast<float>(std::cos(angle)) * table.scale;
      out.sines[position * half + i] = static_cast<float>(std::sin(angle)) * table.scale;
    }
  }
  return out;
}

// Names all that decides a bit: the kernels' arithmetic (the same in every family but for BF16
// pairs), the group of activation scales, attention tiles, KV type, how weights are held, and the
// context where the rotation depends on it.
std::string NumericsId(const Plan& plan, const model::ModelConfig& config,
                       const CompileOptions& options) {
  bool pairs = false;
  for (const ops::PackedMatrix& m : plan.matrices) {
    pairs = pairs || m.view.format == PanelFormat::kBf16Pairs;
  }
  const model::RopeScaling scaling = config.rope.scaling;
  const bool by_length =
      scaling == model::RopeScaling::kDynamic || scaling == model::RopeScaling::kLongRope;
  const std::string text = fmt::format(
      "cpu-2 activations={} group={} pairs={} kv={} unit={} tile={} supertile={} len={}",
      options.activations == Activations::kF32 ? "f32" : "int8", ops::kGroup, pairs,
      Info(options.kv_dtype).name, ops::kKvUnit, ops::kKvTile, ops::kKvSuperTile,
      by_length ? plan.max_model_len : 0);
  return CacheRoot(text, "", "", "").Hex();
}

Status CheckOptions(const CompileOptions& options, const model::ModelConfig& config) {
  if (options.block_size < 16 || options.block_size > 1024 || options.block_size % 16 != 0) {
    return absl::InvalidArgumentError(
        fmt::format("block-size: {} is no multiple of 16 up to 1024", options.block_size));
  }
  if (options.max_model_len < 0 || options.max_model_len > config.context_length) {
    return absl::InvalidArgumentError(fmt::format("max-model-len: {} exceeds the model's {}",
                                                  options.max_model_len, config.context_length));
  }
  if (options.max_batch_tokens < 16 || options.max_batch_tokens > 65536) {
    return absl::InvalidArgumentError("max-num-batched-tokens: must be in [16, 65536]");
  }
  return absl::OkStatus();
}

}  // namespace

StatusOr<Plan> Compile(std::shared_ptr<const Checkpoint> checkpoint, const CompileOptions& options,
                       ThreadPool& pool) {
  const model::ModelConfig& config = checkpoint->config;
  KVASIR_RETURN_IF_ERROR(CheckOptions(options, config));
  KVASIR_ASSIGN_OR_RETURN(Graph graph, model::BuildGraph(*checkpoint));
  KVASIR_RETURN_IF_ERROR(graph::Verify(graph));
  RunPasses(graph, *checkpoint, options);
  KVASIR_RETURN_IF_ERROR(graph::Verify(graph));

  Plan plan;
  plan.hidden = config.hidden;
  plan.heads = config.heads;
  plan.vocab = config.vocab;
  plan.rms_eps = config.rms_eps;
  plan.max_model_len = options.max_model_len > 0 ? options.max_model_len : config.context_length;
  plan.max_batch_tokens = options.max_batch_tokens;
  plan.max_output_rows = options.max_batch_tokens;
  const bool latent = config.latent.rank > 0;
  plan.kv = {options.block_size,
             config.layers,
             config.kv_heads,
             config.head_dim,
             latent ? config.latent.rank : config.head_dim,
             latent,
             options.kv_dtype};
  plan.kernels = options.kernels;
  plan.logits = graph.logits;

  const MemoryPlan memory = PlanMemory(graph, plan.max_batch_tokens, plan.max_output_rows);
  plan.arena_bytes = memory.arena_bytes;
  for (size_t i = 0; i < graph.values.size(); ++i) {
    const graph::Value& v = graph.values[i];
    plan.values.push_back({v.name, v.rows, v.type, v.width, v.copies, memory.offsets[i]});
  }
  Packer packer(*checkpoint, options, pool, plan);
  for (const Node& node : graph.nodes) KVASIR_RETURN_IF_ERROR(packer.Add(node));
  const TensorView& embedding = *checkpoint->Find("token_embd.weight");
  plan.embedding = {embedding.dtype, embedding.rows, embedding.cols, embedding.bytes.data()};
  plan.rotations.push_back(MakeRotation(config.rope, config, plan.max_model_len));
  if (config.has_window_rope) {
    plan.rotations.push_back(MakeRotation(config.window_rope, config, plan.max_model_len));
  }
  plan.numerics_id = NumericsId(plan, config, options);
  plan.source = std::move(checkpoint);
  return plan;
}

}  // namespace kvasir::compile
