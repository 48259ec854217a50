#include "compile/compiler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "compile/key_centers.h"
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
using ops::PanelLayout;
using plan::CompiledModel;
using plan::Plan;

ops::MatrixSource SourceOf(const TensorView& t) {
  return {t.dtype,        t.rows,
          t.cols,         t.bytes.data(),
          t.scaled.get(), t.row_stride,
          t.col_stride,   {t.interleaved.stride, t.interleaved.begin, t.interleaved.width}};
}

// The columns that share a scale where a matrix is rounded to integers.
int64_t GroupFor(int64_t cols, const CompileOptions& options) {
  if (options.group_size == 0 && options.weights == Weights::kInt8) return cols;
  int64_t group = options.group_size > 0 ? options.group_size : 128;
  while (cols % group != 0) group = group % (2 * ops::kGroup) == 0 ? group / 2 : ops::kGroup;
  return group;
}

bool HasFourBits(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4_K:
    case DType::kIq4Nl:
    case DType::kMxfp4:
    case DType::kInt4:
      return true;
    default:
      return false;
  }
}

// The panels that a matrix is rounded to, or those of what is stored. What chooses experts stays as
// it is: it is small, and a choice cannot be nearly right.
PanelLayout Rounded(const std::string& name, const TensorView& tensor,
                    const CompileOptions& options) {
  const bool router = name.ends_with("ffn_gate_inp.weight");
  const PanelLayout stored = ops::StoredLayout(SourceOf(tensor));
  if (options.weights == Weights::kStored || router) return stored;
  if (options.weights == Weights::kFp8) return PanelFormat::kF8E4M3;
  if (tensor.cols % ops::kGroup != 0) return stored;
  const bool int8 = options.weights == Weights::kInt8;
  if (!int8 && HasFourBits(tensor.dtype)) return stored;
  return {int8 ? PanelFormat::kInt8 : PanelFormat::kInt4Zero, GroupFor(tensor.cols, options)};
}

// The panels of a weight under the options.
PanelLayout LayoutFor(const Checkpoint& checkpoint, const std::string& name,
                      const CompileOptions& options) {
  const PanelLayout stored = Rounded(name, *checkpoint.Find(name), options);
  if (options.activations == Activations::kBf16) return PanelFormat::kBf16Rows;
  if (options.activations == Activations::kF32) {
    return ops::IsQuantized(stored.format) ? PanelFormat::kF32 : stored;
  }
  if (stored == PanelFormat::kBf16 && options.kernels->bf16_pairs) return PanelFormat::kBf16Pairs;
  return stored;
}

// The order of columns that its panels have; empty: the weight's own.
absl::Span<const int32_t> OrderFor(const Checkpoint& checkpoint, const std::string& name,
                                   const CompileOptions& options) {
  const TensorView& tensor = *checkpoint.Find(name);
  const PanelLayout layout = LayoutFor(checkpoint, name, options);
  const bool as_stored =
      ops::HasGroups(layout.format) && layout == ops::StoredLayout(SourceOf(tensor));
  return as_stored ? absl::MakeConstSpan(tensor.scaled->order) : absl::Span<const int32_t>();
}

ValueType ActivationFor(PanelFormat format) {
  if (ops::IsQuantized(format)) return ValueType::kQuantized;
  const bool bf16 = format == PanelFormat::kBf16Pairs || format == PanelFormat::kBf16Rows;
  return bf16 ? ValueType::kBf16 : ValueType::kFloat;
}

void RunPasses(Graph& graph, const Checkpoint& checkpoint, const CompileOptions& options) {
  const auto layout = [&](const std::string& weight) {
    return LayoutFor(checkpoint, weight, options);
  };
  const auto activation = [&](const std::string& weight) -> Activation {
    return {ActivationFor(layout(weight).format), OrderFor(checkpoint, weight, options)};
  };
  if (options.fuse) {
    FuseRopeKvWrite(graph);
    FuseSharedInput(graph, [&](const std::string& a, const std::string& b) {
      return layout(a) == layout(b) && activation(a) == activation(b);
    });
    FuseGate(graph);
    FoldScales(graph);
    FuseResidual(graph);
  }
  if (options.activations == Activations::kBf16) NarrowToBf16(graph);
  InsertQuantize(graph, activation);
  if (options.fuse) FuseQuantize(graph);
  RemoveDeadNodes(graph);
}

StatusOr<std::vector<float>> LoadVector(const Checkpoint& checkpoint, const std::string& name) {
  const TensorView& tensor = *checkpoint.Find(name);
  if (!IsPlainFloat(tensor.dtype)) {
    return absl::UnimplementedError(
        fmt::format("tensor '{}' is a vector of type {}: F32, F16 and BF16 can be", name,
                    Info(tensor.dtype).name));
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
  Packer(const Checkpoint& checkpoint, const CompileOptions& options, ThreadPool& pool,
         CompiledModel& model)
      : checkpoint_(checkpoint), options_(options), pool_(pool), model_(model) {}

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
      KVASIR_ASSIGN_OR_RETURN(out.matrix, AddMatrix(node));
      KVASIR_ASSIGN_OR_RETURN(out.bias, AddBias(node));
    }
    if (node.op == Op::kQuantize && !node.weights.empty()) {
      const absl::Span<const int32_t> order = OrderFor(checkpoint_, node.weights[0], options_);
      out.order = static_cast<int32_t>(model_.orders.size());
      model_.orders.emplace_back(order.begin(), order.end());
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
    model_.nodes.push_back(std::move(out));
    return absl::OkStatus();
  }

 private:
  StatusOr<int32_t> AddMatrix(const Node& node) {
    const std::vector<std::string>& weights = node.weights;
    std::vector<ops::MatrixSource> sources;
    for (const std::string& name : weights) {
      sources.push_back(SourceOf(*checkpoint_.Find(name)));
    }
    const PanelLayout layout = LayoutFor(checkpoint_, weights[0], options_);
    if (sources[0].cols % ops::UnitOf(layout).columns != 0) {
      return absl::UnimplementedError(
          fmt::format("tensor '{}' has {} columns: {} takes multiples of {}", weights[0],
                      sources[0].cols, ops::Name(layout.format), ops::UnitOf(layout).columns));
    }
    KVASIR_ASSIGN_OR_RETURN(const auto rounded, RoundCalibrated(node, layout, sources));
    for (size_t i = 0; i < rounded.size(); ++i) sources[i].rounded = rounded[i];
    StatusOr<ops::PackedMatrix> matrix = ops::Pack(sources, layout, pool_);
    if (!matrix.ok()) {
      return Status(matrix.status().code(),
                    fmt::format("tensor '{}', or one multiplied with it: {}", weights[0],
                                std::string(matrix.status().message())));
    }
    model_.matrices.push_back(*std::move(matrix));
    return static_cast<int32_t>(model_.matrices.size()) - 1;
  }

  // The rows of each source, where they are rounded to integers and what they are multiplied with
  // is known.
  StatusOr<std::vector<std::vector<ops::IntegerRow>>> RoundCalibrated(
      const Node& node, PanelLayout layout, absl::Span<const ops::MatrixSource> sources) {
    std::vector<std::vector<ops::IntegerRow>> out;
    const bool rounds = ops::HasGroups(layout.format) && layout != ops::StoredLayout(sources[0]);
    if (!rounds || options_.calibration == nullptr || node.op != Op::kMatmul) return out;
    KVASIR_ASSIGN_OR_RETURN(const ops::RoundingFactor* factor,
                            options_.calibration->FactorOf(node.weights[0]));
    if (factor == nullptr) return out;
    for (const ops::MatrixSource& source : sources) {
      out.push_back(ops::RoundCalibrated(source, layout, *factor, pool_));
    }
    return out;
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
    model_.vectors.push_back(std::move(values));
    return static_cast<int32_t>(model_.vectors.size()) - 1;
  }

  const Checkpoint& checkpoint_;
  const CompileOptions& options_;
  ThreadPool& pool_;
  CompiledModel& model_;
};

plan::Rotation MakeRotation(const model::RopeConfig& rope, int32_t context_length,
                            int32_t max_model_len) {
  const model::RopeTable table = model::MakeRopeTable(rope, max_model_len, context_length);
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

bool HasPairs(const CompiledModel& model) {
  for (const ops::PackedMatrix& m : model.matrices) {
    if (m.view.format == PanelFormat::kBf16Pairs) return true;
  }
  return false;
}

bool DependsOnLength(const CompiledModel& model) {
  for (const model::RopeConfig& rope : model.ropes) {
    if (rope.scaling == model::RopeScaling::kDynamic ||
        rope.scaling == model::RopeScaling::kLongRope) {
      return true;
    }
  }
  return false;
}

// Names all that decides a bit: the kernels' arithmetic (the same in every family but for BF16
// pairs), the group of activation scales, attention tiles, KV type, how weights are held, and the
// context where the rotation depends on it.
std::string NumericsId(const Plan& plan) {
  const std::string text = fmt::format(
      "cpu-2 activations={} group={} pairs={} kv={} unit={} tile={} supertile={} len={}",
      plan.activations, ops::kGroup, HasPairs(plan), ops::Info(plan.kv.type).name, ops::kKvUnit,
      ops::kKvTile, ops::kKvSuperTile, DependsOnLength(plan) ? plan.max_model_len : 0);
  return CacheRoot(text, "", "", "").Hex();
}

// The longest context that the rotations are good for.
int32_t LongestContext(int32_t context_length, const model::RopeConfig& rope) {
  if (rope.scaling != model::RopeScaling::kDynamic) return context_length;
  const double stretched = double{rope.factor} * context_length;
  return static_cast<int32_t>(std::clamp(stretched, 1.0 * context_length, double{1 << 24}));
}

Status CheckOptions(const CompileOptions& options, int32_t context_length) {
  if (options.block_size < 16 || options.block_size > 1024 || options.block_size % 16 != 0) {
    return absl::InvalidArgumentError(
        fmt::format("block-size: {} is no multiple of 16 up to 1024", options.block_size));
  }
  if (options.max_model_len < 0 || options.max_model_len > context_length) {
    return absl::InvalidArgumentError(fmt::format("max-model-len: {} exceeds the model's {}",
                                                  options.max_model_len, context_length));
  }
  if (options.max_batch_tokens < 16 || options.max_batch_tokens > 65536) {
    return absl::InvalidArgumentError("max-num-batched-tokens: must be in [16, 65536]");
  }
  return absl::OkStatus();
}

StatusOr<Graph> OptimizedGraph(const Checkpoint& checkpoint, const CompileOptions& options) {
  if (options.group_size < 0 || options.group_size % ops::kGroup != 0) {
    return absl::InvalidArgumentError(
        fmt::format("group-size: {} is no multiple of {}", options.group_size, ops::kGroup));
  }
  KVASIR_ASSIGN_OR_RETURN(Graph graph, model::BuildGraph(checkpoint));
  KVASIR_RETURN_IF_ERROR(graph::Verify(graph));
  RunPasses(graph, checkpoint, options);
  KVASIR_RETURN_IF_ERROR(graph::Verify(graph));
  return graph;
}

constexpr int64_t kMaxTableBytes = int64_t{4} << 30;

// What the configuration alone says of the compiled model.
CompiledModel Describe(const Checkpoint& checkpoint, const CompileOptions& options) {
  const model::ModelConfig& config = checkpoint.config;
  const bool latent = config.latent.rank > 0;
  CompiledModel out;
  out.architecture = config.architecture;
  out.name = config.name;
  out.activations = Name(options.activations);
  out.text = checkpoint.text;
  out.eos_ids = config.eos_ids;
  out.layers = config.layers;
  out.hidden = config.hidden;
  out.heads = config.heads;
  out.kv_heads = config.kv_heads;
  out.k_dim = config.head_dim;
  out.v_dim = latent ? config.latent.rank : config.head_dim;
  out.v_in_k = latent;
  out.vocab = config.vocab;
  out.context_length = config.context_length;
  out.rms_eps = config.rms_eps;
  out.ropes.push_back(config.rope);
  if (config.has_window_rope) out.ropes.push_back(config.window_rope);
  const TensorView& embedding = *checkpoint.Find("token_embd.weight");
  out.embedding = {embedding.dtype, embedding.rows, embedding.cols, embedding.bytes.data()};
  return out;
}

plan::KvLayout KvLayoutOf(const CompiledModel& model, const CompileOptions& options) {
  return {.block_size = options.block_size,
          .layers = model.layers,
          .kv_heads = model.kv_heads,
          .k_dim = model.k_dim,
          .v_dim = model.v_dim,
          .v_in_k = model.v_in_k,
          .type = options.kv_type.value_or(model.kv_type)};
}

// Of the weights as they are used.
std::string Fingerprint(const Checkpoint& checkpoint, const CompileOptions& options) {
  std::string stored = model::WeightsFingerprint(checkpoint);
  if (options.weights == Weights::kStored) return stored;
  const std::string rounding =
      fmt::format("{} {} {}", static_cast<int>(options.weights), options.group_size,
                  options.calibration != nullptr ? options.calibration->id() : "");
  return CacheRoot(stored, rounding, "", "").Hex();
}

}  // namespace

StatusOr<CompiledModel> CompileModel(std::shared_ptr<const Checkpoint> checkpoint,
                                     const CompileOptions& options, ThreadPool& pool,
                                     const Progress& progress) {
  KVASIR_ASSIGN_OR_RETURN(const Graph graph, OptimizedGraph(*checkpoint, options));
  CompiledModel out = Describe(*checkpoint, options);
  out.fingerprint = Fingerprint(*checkpoint, options);
  out.values = graph.values;
  out.logits = graph.logits;
  Packer packer(*checkpoint, options, pool, out);
  const int64_t total = static_cast<int64_t>(graph.nodes.size());
  for (int64_t i = 0; i < total; ++i) {
    if (progress) progress(i, total);
    KVASIR_RETURN_IF_ERROR(packer.Add(graph.nodes[i]));
  }
  if (progress) progress(total, total);
  out.source = std::move(checkpoint);
  return out;
}

StatusOr<std::vector<std::vector<std::string>>> ProductWeights(const Checkpoint& checkpoint,
                                                               const CompileOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(const Graph graph, OptimizedGraph(checkpoint, options));
  std::vector<std::vector<std::string>> out;
  for (const Node& node : graph.nodes) {
    const bool product = node.op == Op::kMatmul || node.op == Op::kGroupedMatmul;
    out.push_back(product ? node.weights : std::vector<std::string>());
  }
  return out;
}

StatusOr<Plan> MakePlan(CompiledModel model, const CompileOptions& options) {
  KVASIR_RETURN_IF_ERROR(
      CheckOptions(options, LongestContext(model.context_length, model.ropes.front())));
  if (HasPairs(model) && !options.kernels->bf16_pairs) {
    return absl::FailedPreconditionError(fmt::format(
        "was compiled for a CPU with AVX-512 BF16, which the kernels '{}' do not use: build it "
        "again for them",
        options.kernels->name));
  }
  Plan plan;
  static_cast<CompiledModel&>(plan) = std::move(model);
  plan.max_model_len = options.max_model_len > 0 ? options.max_model_len : plan.context_length;
  plan.max_batch_tokens = options.max_batch_tokens;
  plan.max_output_rows = options.max_batch_tokens;
  plan.kv = KvLayoutOf(plan, options);
  plan.kernels = options.kernels;
  MemoryPlan memory = PlanMemory(GraphOf(plan), plan.max_batch_tokens, plan.max_output_rows);
  plan.arena_bytes = memory.arena_bytes;
  plan.offsets = std::move(memory.offsets);
  int64_t table_bytes = 0;
  for (const model::RopeConfig& rope : plan.ropes) {
    table_bytes += int64_t{plan.max_model_len} * rope.width * sizeof(float);
  }
  if (table_bytes > kMaxTableBytes) {
    return absl::ResourceExhaustedError(fmt::format(
        "max-model-len: rotations of {} positions take {} MiB, more than the {} MiB that they may",
        plan.max_model_len, table_bytes >> 20, kMaxTableBytes >> 20));
  }
  for (const model::RopeConfig& rope : plan.ropes) {
    plan.rotations.push_back(MakeRotation(rope, plan.context_length, plan.max_model_len));
  }
  plan.key_centers.resize(plan.layers);
  if (ops::HasScales(plan.kv.type)) plan.key_centers = KeyCenters(plan, plan.max_model_len);
  plan.numerics_id = NumericsId(plan);
  return plan;
}

StatusOr<Plan> Compile(std::shared_ptr<const Checkpoint> checkpoint, const CompileOptions& options,
                       ThreadPool& pool) {
  const model::ModelConfig& config = checkpoint->config;
  KVASIR_RETURN_IF_ERROR(CheckOptions(options, LongestContext(config.context_length, config.rope)));
  KVASIR_ASSIGN_OR_RETURN(CompiledModel model, CompileModel(std::move(checkpoint), options, pool));
  return MakePlan(std::move(model), options);
}

StatusOr<std::string> Explain(const Checkpoint& checkpoint, const CompileOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(const Graph before, model::BuildGraph(checkpoint));
  KVASIR_ASSIGN_OR_RETURN(const Graph after, OptimizedGraph(checkpoint, options));
  const MemoryPlan memory = PlanMemory(after, options.max_batch_tokens, options.max_batch_tokens);
  std::string out = fmt::format("Before the passes: {} nodes\n{}\nAfter: {} nodes\n{}\nWeights\n",
                                before.nodes.size(), graph::Print(before), after.nodes.size(),
                                graph::Print(after));
  for (const Node& node : after.nodes) {
    if (node.op != Op::kMatmul && node.op != Op::kGroupedMatmul) continue;
    const TensorView& first = *checkpoint.Find(node.weights[0]);
    out += fmt::format("{} and {} more: {} as {}\n", node.weights[0], node.weights.size() - 1,
                       Info(first.dtype).name,
                       ops::Name(LayoutFor(checkpoint, node.weights[0], options).format));
  }
  out += fmt::format(
      "\nActivations of {} tokens: {} bytes, {:.2f} % above the most that live at once\n",
      options.max_batch_tokens, memory.arena_bytes,
      100.0 * (memory.arena_bytes - memory.peak_live_bytes) /
          std::max<int64_t>(memory.peak_live_bytes, 1));
  const plan::KvLayout kv = KvLayoutOf(Describe(checkpoint, options), options);
  out += fmt::format("KV in {}: {} bytes a token, in blocks of {} tokens and {} bytes\n",
                     ops::Info(kv.type).name, kv.layers * kv.layer_bytes() / kv.block_size,
                     kv.block_size, kv.block_bytes());
  return out;
}

}  // namespace kvasir::compile
