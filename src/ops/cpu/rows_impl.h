// Part of kernels_impl.h: kernels of single rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/cpu/kernels.h"
#include "ops/cpu/math_impl.h"

namespace kvasir::ops {
namespace {

// ---- Row-wise kernels; cols is a multiple of 32 ----

template <class Isa>
void Quantize(const float* x, int64_t row, const QuantizedRows& out) {
  const int64_t groups = out.cols / kGroup;
  int8_t* q = out.q + row * out.cols;
  for (int64_t g = 0; g < groups; ++g, x += kGroup, q += kGroup) {
    const auto a = Isa::Load(x);
    const auto b = Isa::Load(x + 16);
    const float largest = Isa::ReduceMax(Isa::Max(Isa::Abs(a), Isa::Abs(b)));
    const float scale = largest / 127.0f;
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    // A subnormal maximum has an infinite inverse: such a group is zero.
    const auto factor = Isa::Set(inverse < 3e38f ? inverse : 0.0f);
    const int32_t low = Isa::RoundToInt8(Isa::Mul(a, factor), q);
    const int32_t high = Isa::RoundToInt8(Isa::Mul(b, factor), q + 16);
    const int64_t at = row * groups + g;
    out.scale[at] = scale;
    out.sum[at] = scale * static_cast<float>(low + high);
    out.half_sum[2 * at] = scale * static_cast<float>(low);
    out.half_sum[2 * at + 1] = scale * static_cast<float>(high);
    out.integer_sum[at] = low + high;
  }
}

template <class Isa>
void RoundBf16(const float* x, int64_t cols, uint16_t* out) {
  for (int64_t i = 0; i < cols; i += 16) Isa::StoreBf16(out + i, Isa::Load(x + i));
}

template <class Isa>
void RmsNorm(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  auto squares = Isa::Set(0.0f);
  for (int64_t i = 0; i < cols; i += 16) {
    const auto v = Isa::Load(x + i);
    squares = Isa::Fma(v, v, squares);
  }
  const float mean = Isa::ReduceAdd(squares) / static_cast<float>(cols);
  const auto scale = Isa::Set(1.0f / __builtin_sqrtf(mean + eps));
  for (int64_t i = 0; i < cols; i += 16) {
    Isa::Store(out + i, Isa::Mul(Isa::Mul(Isa::Load(x + i), scale), Isa::Load(weight + i)));
  }
}

template <class Isa>
typename Isa::Vf Gate(const GateArgs& args, const typename Isa::Vf& gate,
                      const typename Isa::Vf& up) {
  const auto one = Isa::Set(1.0f);
  switch (args.op) {
    case GateOp::kSilu: {
      const auto denominator = Isa::Add(one, Exp<Isa>(Isa::Mul(gate, Isa::Set(-1.0f))));
      return Isa::Mul(Isa::Div(gate, denominator), up);
    }
    case GateOp::kGelu: {
      const auto cube = Isa::Mul(Isa::Mul(gate, gate), gate);
      const auto inner = Isa::Fma(cube, Isa::Set(0.044715f), gate);
      const auto e = Exp<Isa>(Isa::Mul(inner, Isa::Set(-1.5957691216057308f)));
      return Isa::Mul(Isa::Div(gate, Isa::Add(one, e)), up);
    }
    case GateOp::kClamped: {
      const auto limit = Isa::Set(args.limit);
      const auto g = Isa::Min(gate, limit);
      const auto u = Isa::Min(Isa::Max(up, Isa::Set(-args.limit)), limit);
      const auto e = Exp<Isa>(Isa::Mul(g, Isa::Set(-args.alpha)));
      return Isa::Mul(Isa::Div(g, Isa::Add(one, e)), Isa::Add(u, one));
    }
  }
  return gate;
}

template <class Isa>
void Gated(const GateArgs& args, const float* gate, const float* up, int64_t cols, float* out) {
  for (int64_t i = 0; i < cols; i += 16) {
    Isa::Store(out + i, Gate<Isa>(args, Isa::Load(gate + i), Isa::Load(up + i)));
  }
}

template <class Isa>
void Softcap(float cap, int64_t cols, float* x) {
  int64_t i = 0;
  for (; i + 16 <= cols; i += 16) Isa::Store(x + i, Softcapped<Isa>(cap, Isa::Load(x + i)));
  alignas(64) float lanes[16];
  for (; i < cols; ++i) {
    Isa::Store(lanes, Softcapped<Isa>(cap, Isa::Set(x[i])));
    x[i] = lanes[0];
  }
}

// ---- The choice of experts: short rows, so lane by lane ----

// Index of the largest of [begin, end) that is not taken, which it then is; the first of equals.
inline int32_t TakeLargest(float* values, int32_t begin, int32_t end) {
  int32_t best = begin;
  for (int32_t i = begin + 1; i < end; ++i) {
    if (values[i] > values[best]) best = i;
  }
  values[best] = -__builtin_inff();
  return best;
}

// Leaves only the experts of the best groups in the choice.
inline void KeepBestGroups(const RouteArgs& args, float* choice, float* group_scores) {
  const int32_t size = args.experts / args.groups;
  for (int32_t g = 0; g < args.groups; ++g) {
    const float* group = choice + g * size;
    float first = group[0], second = -__builtin_inff();
    for (int32_t i = 1; i < size; ++i) {
      if (group[i] > first) {
        second = first;
        first = group[i];
      } else if (group[i] > second) {
        second = group[i];
      }
    }
    group_scores[g] = size > 1 ? first + second : first;
  }
  for (int32_t n = 0; n < args.groups_used; ++n) TakeLargest(group_scores, 0, args.groups);
  for (int32_t g = 0; g < args.groups; ++g) {
    if (group_scores[g] == -__builtin_inff()) continue;
    for (int32_t i = 0; i < size; ++i) choice[g * size + i] = -__builtin_inff();
  }
}

template <class Isa>
void Route(const RouteArgs& args) {
  float* probability = args.scratch;
  float* choice = args.scratch + args.experts;
  float largest = args.scores[0], sum = 0;
  for (int32_t e = 1; e < args.experts; ++e) {
    if (args.scores[e] > largest) largest = args.scores[e];
  }
  for (int32_t e = 0; e < args.experts; ++e) {
    probability[e] = args.sigmoid ? 1.0f / (1.0f + ExpScalar<Isa>(-args.scores[e]))
                                  : ExpScalar<Isa>(args.scores[e] - largest);
    sum += probability[e];
  }
  for (int32_t e = 0; e < args.experts; ++e) {
    if (!args.sigmoid) probability[e] /= sum;
    choice[e] = args.sigmoid ? probability[e] : args.scores[e];
    if (args.bias != nullptr) choice[e] += args.bias[e];
  }
  if (args.groups_used < args.groups) KeepBestGroups(args, choice, choice + args.experts);
  float total = 0;
  for (int32_t n = 0; n < args.used; ++n) {
    const int32_t expert = TakeLargest(choice, 0, args.experts);
    args.out[2 * n] = static_cast<float>(expert);
    args.out[2 * n + 1] = probability[expert];
    total += probability[expert];
  }
  for (int32_t n = 0; n < args.used; ++n) {
    float& weight = args.out[2 * n + 1];
    if (args.normalize) weight /= total + 1e-20f;
    weight *= args.scale;
  }
}

}  // namespace
}  // namespace kvasir::ops
