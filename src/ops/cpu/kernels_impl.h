// The kernels, written once over the 16-lane vocabulary of an instruction-set family (isa_*.h).
// Included by one translation unit per family, inside an anonymous namespace, after the family.
//
// Reduction order, which no family may change: every output of a matrix product is one lane, added
// up over k in order; sums over a row keep 16 partial sums, lane = index % 16, and fold them by
// halves; KV positions are added in order within a tile.
#pragma once

#include "ops/cpu/attention_impl.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/matmul_impl.h"
#include "ops/cpu/rows_impl.h"

namespace kvasir::ops {
namespace {

template <class Isa>
constexpr CpuKernels MakeKernels() {
  return {Isa::kName,   Isa::kBf16Pairs, Matmul<Isa>,  Quantize<Isa>, RoundBf16<Isa>,
          RmsNorm<Isa>, Gated<Isa>,      Softcap<Isa>, Route<Isa>,    Spread<Isa>,
          RoundKv<Isa>, Attend<Isa>,     Merge<Isa>};
}

}  // namespace
}  // namespace kvasir::ops
