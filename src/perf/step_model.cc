#include "perf/step_model.h"

#include <algorithm>
#include <cmath>

namespace kvasir::perf {
namespace {

using Vector = LinearFit::Vector;

constexpr double kForget = 0.98;       // a step's weight is halved after 34 more
constexpr double kPriorWeight = 1e-3;  // of one observation at the features' scale
constexpr double kShortest = 1e-6;     // seconds: the least that is predicted
constexpr int64_t kTrusted = 8;        // observations after which outliers are cut
constexpr double kOutlier = 4.0;       // times the prediction
constexpr double kForgetOverrun = 0.997;
constexpr double kMostOverrun = 2.0;
constexpr double kUnknownOverrun = 1.5;

// A small model on a laptop; any machine replaces it within its first steps.
constexpr Vector kDecodePrior = {5e-3, 2e-7, 2e-4};
constexpr Vector kPrefillPrior = {5e-3, 1e-3, 2e-8};
constexpr Vector kDecodeScale = {1, 4096, 8};
constexpr Vector kPrefillScale = {1, 128, 32768};

Vector DecodeFeatures(const StepShape& s) {
  return {1, static_cast<double>(s.decode_context), static_cast<double>(s.decodes)};
}

Vector PrefillFeatures(const StepShape& s) {
  return {s.decodes == 0 ? 1.0 : 0.0, static_cast<double>(s.prefill_tokens),
          static_cast<double>(s.prefill_pairs)};
}

double Dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// Solves the symmetric positive definite system over the features in `active`; the others are 0.
Vector SolveActive(std::array<Vector, 3> a, Vector b, const std::array<bool, 3>& active) {
  for (int i = 0; i < 3; ++i) {
    if (active[i]) continue;
    for (int j = 0; j < 3; ++j) a[i][j] = a[j][i] = 0;
    a[i][i] = 1;
    b[i] = 0;
  }
  for (int i = 0; i < 3; ++i) {
    for (int r = i + 1; r < 3; ++r) {
      const double f = a[r][i] / a[i][i];
      for (int c = i; c < 3; ++c) a[r][c] -= f * a[i][c];
      b[r] -= f * b[i];
    }
  }
  for (int i = 2; i >= 0; --i) {
    for (int c = i + 1; c < 3; ++c) b[i] -= a[i][c] * b[c];
    b[i] /= a[i][i];
  }
  return b;
}

}  // namespace

LinearFit::LinearFit(const Vector& prior, const Vector& scale) : scale_(scale), prior_(prior) {
  for (int i = 0; i < 3; ++i) prior_[i] *= scale_[i];
  coefficients_ = prior_;
}

double LinearFit::Predict(const Vector& features) const {
  double sum = 0;
  for (int i = 0; i < 3; ++i) sum += coefficients_[i] * features[i] / scale_[i];
  return sum;
}

void LinearFit::Observe(const Vector& features, double target, double weight) {
  Vector x;
  for (int i = 0; i < 3; ++i) x[i] = features[i] / scale_[i];
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) gram_[i][j] = kForget * gram_[i][j] + weight * x[i] * x[j];
    moment_[i] = kForget * moment_[i] + weight * x[i] * target;
  }
  Solve();
}

// Least squares with a pull towards the prior that is relative to it, so that it weighs the same
// at every speed; a coefficient that comes out negative is set to 0 and the rest solved again.
void LinearFit::Solve() {
  std::array<Vector, 3> a = gram_;
  Vector b = moment_;
  for (int i = 0; i < 3; ++i) {
    const double pull = kPriorWeight / (prior_[i] * prior_[i]);
    a[i][i] += pull;
    b[i] += pull * prior_[i];
  }
  std::array<bool, 3> active = {true, true, true};
  for (int round = 0; round < 3; ++round) {
    coefficients_ = SolveActive(a, b, active);
    const auto least = std::min_element(coefficients_.begin(), coefficients_.end());
    if (*least >= 0) return;
    active[least - coefficients_.begin()] = false;
  }
  coefficients_ = SolveActive(a, b, active);
}

LinearFit::Vector LinearFit::coefficients() const {
  Vector unscaled;
  for (int i = 0; i < 3; ++i) unscaled[i] = coefficients_[i] / scale_[i];
  return unscaled;
}

double StepCoefficients::Predict(const StepShape& shape) const {
  const double decodes = shape.decodes == 0 ? 0 : Dot(decode, DecodeFeatures(shape));
  const double prefills = shape.prefill_tokens == 0 ? 0 : Dot(prefill, PrefillFeatures(shape));
  return decodes + prefills;
}

StepModel::StepModel()
    : decode_(kDecodePrior, kDecodeScale),
      prefill_(kPrefillPrior, kPrefillScale),
      overrun_(kUnknownOverrun) {}

double StepModel::Decodes(const StepShape& shape) const {
  return shape.decodes == 0 ? 0 : decode_.Predict(DecodeFeatures(shape));
}

double StepModel::Predict(const StepShape& shape) const {
  const double prefill = shape.prefill_tokens == 0 ? 0 : prefill_.Predict(PrefillFeatures(shape));
  return std::max(kShortest, Decodes(shape) + prefill);
}

StepCoefficients StepModel::coefficients() const {
  return {decode_.coefficients(), prefill_.coefficients()};
}

void StepModel::Observe(const StepShape& shape, double seconds) {
  if (!std::isfinite(seconds) || seconds <= 0) return;
  const bool prefills = shape.prefill_tokens > 0;
  if (!prefills && shape.decodes == 0) return;
  int64_t& observed = prefills ? observed_prefill_ : observed_decode_;
  if (observed++ >= kTrusted) {
    const double predicted = Predict(shape);
    if (prefills && shape.decodes > 0) ObserveOverrun(seconds / predicted);
    seconds = std::min(seconds, kOutlier * predicted);
  }
  const double weight = 1 / (seconds * seconds);
  if (prefills) {
    prefill_.Observe(PrefillFeatures(shape), seconds - Decodes(shape), weight);
  } else {
    decode_.Observe(DecodeFeatures(shape), seconds, weight);
  }
}

// A stall says nothing about the next steps.
void StepModel::ObserveOverrun(double factor) {
  overrun_ = 1 + kForgetOverrun * (overrun_ - 1);
  if (factor < kOutlier) overrun_ = std::clamp(factor, overrun_, kMostOverrun);
}

}  // namespace kvasir::perf
