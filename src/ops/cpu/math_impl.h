// Part of kernels_impl.h: functions of a vector.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/cpu/kernels.h"

namespace kvasir::ops {
namespace {

// exp(x) by Cody and Waite's reduction and a degree-6 polynomial (the coefficients of Cephes'
// expf); exactly 0 below -87, saturating above 88. Relative error below 3e-7.
template <class Isa>
typename Isa::Vf Exp(const typename Isa::Vf& x) {
  using Vf = typename Isa::Vf;
  const Vf low = Isa::Set(-87.0f);
  const Vf clamped = Isa::Min(Isa::Max(x, low), Isa::Set(88.0f));
  const Vf magic = Isa::Set(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vf n = Isa::Sub(Isa::Fma(clamped, Isa::Set(1.44269504088896341f), magic), magic);
  Vf r = Isa::Fma(n, Isa::Set(-0.693359375f), clamped);
  r = Isa::Fma(n, Isa::Set(2.12194440e-4f), r);
  Vf p = Isa::Set(1.9875691500e-4f);
  p = Isa::Fma(p, r, Isa::Set(1.3981999507e-3f));
  p = Isa::Fma(p, r, Isa::Set(8.3334519073e-3f));
  p = Isa::Fma(p, r, Isa::Set(4.1665795894e-2f));
  p = Isa::Fma(p, r, Isa::Set(1.6666665459e-1f));
  p = Isa::Fma(p, r, Isa::Set(5.0000001201e-1f));
  p = Isa::Add(Isa::Fma(p, Isa::Mul(r, r), r), Isa::Set(1.0f));
  return Isa::KeepIfGe(x, low, Isa::ScaleByPowerOfTwo(p, n));
}

template <class Isa>
float ExpScalar(float x) {
  alignas(64) float lanes[16];
  Isa::Store(lanes, Exp<Isa>(Isa::Set(x)));
  return lanes[0];
}

// 1 / (1 + exp(-x))
template <class Isa>
typename Isa::Vf Sigmoid(const typename Isa::Vf& x) {
  const auto one = Isa::Set(1.0f);
  return Isa::Div(one, Isa::Add(one, Exp<Isa>(Isa::Mul(x, Isa::Set(-1.0f)))));
}

// cap * tanh(x / cap), by tanh(y) = 1 - 2 / (exp(2y) + 1).
template <class Isa>
typename Isa::Vf Softcapped(float cap, const typename Isa::Vf& x) {
  const auto one = Isa::Set(1.0f);
  const auto e = Exp<Isa>(Isa::Mul(x, Isa::Set(2.0f / cap)));
  const auto tanh = Isa::Sub(one, Isa::Div(Isa::Set(2.0f), Isa::Add(e, one)));
  return Isa::Mul(Isa::Set(cap), tanh);
}

}  // namespace
}  // namespace kvasir::ops
