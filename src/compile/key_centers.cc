#include "compile/key_centers.h"

#include <algorithm>
#include <cmath>
#include <complex>

#include "model/rope.h"

namespace kvasir::compile {
namespace {

using graph::Op;
using plan::CompiledModel;
using plan::PlanNode;

// Over which the mean is taken: far more than most contexts have, and few enough for the slow
// columns of long ones to stand still.
constexpr int32_t kPositions = 4096;

const PlanNode* Producer(const CompiledModel& model, graph::ValueId value) {
  const auto it = std::find_if(model.nodes.begin(), model.nodes.end(),
                               [&](const PlanNode& node) { return node.output == value; });
  return it == model.nodes.end() ? nullptr : &*it;
}

// Keys before their rotation, and the rotation; null where `write` writes no such keys.
struct Keys {
  const graph::Operand* operand = nullptr;
  int32_t table = 0;
};

Keys KeysOf(const CompiledModel& model, const PlanNode& write) {
  if (write.op == Op::kRopeKvWrite) return {&write.inputs[1], write.table};
  if (write.op != Op::kKvWrite || model.v_in_k) return {};
  const PlanNode* rope = Producer(model, write.inputs[0].value);
  if (rope == nullptr || rope->op != Op::kRope) return {};
  return {&rope->inputs[0], rope->table};
}

bool SeesShifts(const CompiledModel& model, int32_t layer) {
  return std::any_of(model.nodes.begin(), model.nodes.end(), [&](const PlanNode& node) {
    return node.op == Op::kAttention && node.layer == layer &&
           (node.softcap != 0.0f || node.vector >= 0);
  });
}

// The mean of exp(i t frequency) over the first positions: a geometric sum.
std::complex<double> MeanTurn(double frequency) {
  const double step = std::sin(frequency / 2);
  if (step == 0) return 1;
  const double length = std::sin(kPositions * frequency / 2) / (kPositions * step);
  const double middle = (kPositions - 1) * frequency / 2;
  return {length * std::cos(middle), length * std::sin(middle)};
}

// Turns one head's bias into its mean.
void MeanOfRotated(const std::vector<std::complex<double>>& turns, float* head) {
  const size_t half = turns.size();
  for (size_t i = 0; i < half; ++i) {
    const std::complex<double> mean = turns[i] * std::complex<double>(head[i], head[i + half]);
    head[i] = static_cast<float>(mean.real());
    head[i + half] = static_cast<float>(mean.imag());
  }
}

}  // namespace

std::vector<std::vector<float>> KeyCenters(const CompiledModel& model, int32_t max_model_len) {
  std::vector<std::vector<std::complex<double>>> turns;
  for (const model::RopeConfig& rope : model.ropes) {
    const model::RopeTable table = model::MakeRopeTable(rope, max_model_len, model.context_length);
    std::vector<std::complex<double>>& out = turns.emplace_back();
    for (const double frequency : table.frequencies) {
      out.push_back(MeanTurn(frequency) * double{table.scale});
    }
  }
  std::vector<std::vector<float>> out(model.layers);
  for (const PlanNode& write : model.nodes) {
    const Keys keys = KeysOf(model, write);
    if (keys.operand == nullptr || SeesShifts(model, write.layer)) continue;
    const PlanNode* product = Producer(model, keys.operand->value);
    if (product == nullptr || product->op != Op::kMatmul || product->bias < 0) continue;
    const float* bias = model.vectors[product->bias].data() + keys.operand->column;
    std::vector<float>& centers = out[write.layer];
    centers.assign(bias, bias + keys.operand->width);
    for (int32_t head = 0; head < model.kv_heads; ++head) {
      MeanOfRotated(turns[keys.table], centers.data() + int64_t{head} * model.k_dim);
    }
  }
  return out;
}

}  // namespace kvasir::compile
