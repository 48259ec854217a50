#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace kvasir::model {
namespace {

using std::numbers::pi;

double YarnMagnitude(double factor, double weight) {
  return factor <= 1.0 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
}

// Long wavelengths are divided by `factor`, short ones kept, those between interpolated.
void ScaleLlama3(const RopeConfig& rope, std::vector<double>& frequencies) {
  for (double& frequency : frequencies) {
    const double wavelength = 2.0 * pi / frequency;
    if (wavelength < rope.original_context / rope.high_frequency) continue;
    if (wavelength > rope.original_context / rope.low_frequency) {
      frequency /= rope.factor;
      continue;
    }
    const double smooth = (rope.original_context / wavelength - rope.low_frequency) /
                          (double{rope.high_frequency} - rope.low_frequency);
    frequency *= (1.0 - smooth) / rope.factor + smooth;
  }
}

void ScaleYarn(const RopeConfig& rope, std::vector<double>& frequencies) {
  const auto dimension = [&](double rotations) {
    return rope.width * std::log(rope.original_context / (rotations * 2.0 * pi)) /
           (2.0 * std::log(double{rope.theta}));
  };
  double low = dimension(rope.beta_fast);
  double high = dimension(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rope.width - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= ramp / rope.factor + (1.0 - ramp);
  }
}

double ThetaOf(const RopeConfig& rope, int32_t context, int32_t trained_context) {
  if (rope.scaling != RopeScaling::kDynamic || context <= trained_context) return rope.theta;
  const double grown = rope.factor * context / trained_context - (rope.factor - 1.0);
  return rope.theta * std::pow(grown, rope.width / (rope.width - 2.0));
}

float ScaleOf(const RopeConfig& rope, int32_t trained_context) {
  if (rope.attention_factor > 0.0f) return rope.attention_factor;
  if (rope.scaling == RopeScaling::kYarn) {
    if (rope.mscale > 0.0f && rope.mscale_all > 0.0f) {
      return static_cast<float>(YarnMagnitude(rope.factor, rope.mscale) /
                                YarnMagnitude(rope.factor, rope.mscale_all));
    }
    return static_cast<float>(YarnMagnitude(rope.factor, 1.0));
  }
  if (rope.scaling == RopeScaling::kLongRope) {
    const double factor =
        rope.factor > 1.0f ? rope.factor : double{1} * trained_context / rope.original_context;
    if (factor <= 1.0) return 1.0f;
    return static_cast<float>(
        std::sqrt(1.0 + std::log(factor) / std::log(double{1} * rope.original_context)));
  }
  return 1.0f;
}

}  // namespace

RopeTable MakeRopeTable(const RopeConfig& rope, int32_t context, int32_t trained_context) {
  RopeTable out;
  const double theta = ThetaOf(rope, context, trained_context);
  for (int32_t i = 0; i < rope.width / 2; ++i) {
    out.frequencies.push_back(std::pow(theta, -2.0 * i / rope.width));
  }
  const bool beyond = rope.scaling == RopeScaling::kLongRope && context > rope.original_context;
  const std::vector<float>& factors = beyond ? rope.long_factors : rope.factors;
  for (size_t i = 0; i < factors.size(); ++i) out.frequencies[i] /= factors[i];
  if (rope.scaling == RopeScaling::kLinear) {
    for (double& frequency : out.frequencies) frequency /= rope.factor;
  }
  if (rope.scaling == RopeScaling::kLlama3) ScaleLlama3(rope, out.frequencies);
  if (rope.scaling == RopeScaling::kYarn) ScaleYarn(rope, out.frequencies);
  out.scale = ScaleOf(rope, trained_context);
  return out;
}

float LatentScoreFactor(const RopeConfig& rope) {
  if (rope.scaling != RopeScaling::kYarn || rope.mscale_all <= 0.0f) return 1.0f;
  const double magnitude = YarnMagnitude(rope.factor, rope.mscale_all);
  return static_cast<float>(magnitude * magnitude);
}

}  // namespace kvasir::model
