// Predicts how long a step takes from what is in it, fitted while serving.
//
// The form is DistServe's (Zhong et al., OSDI 2024), for steps that may mix both phases:
//   decodes alone    a + b * sum(context) + c * sequences
//   prefill alone    a + b * sum(l) + c * sum(attended pairs)    (the latter is l^2 / 2 uncached)
//   both             the decodes' time + the prefill's without its a: weights are read once
// The coefficients are least squares of the relative error with exponential forgetting, held by a
// weak prior, and never negative. Pure and deterministic.
#pragma once

#include <array>
#include <cstdint>

namespace kvasir::perf {

// What a step computes, summed over its sequences.
struct StepShape {
  int64_t prefill_tokens = 0;
  int64_t prefill_pairs = 0;   // (query, key) pairs that the prefill tokens attend to
  int64_t decodes = 0;         // sequences
  int64_t decode_context = 0;  // tokens that they attend to

  // A chunk of `tokens` after `start` computed ones.
  void AddPrefill(int64_t start, int64_t tokens) {
    prefill_tokens += tokens;
    prefill_pairs += tokens * start + tokens * (tokens + 1) / 2;
  }
  void AddDecode(int64_t context) {
    ++decodes;
    decode_context += context;
  }
};

// A linear model of three features.
class LinearFit {
 public:
  using Vector = std::array<double, 3>;

  // The prior's coefficients; features are divided by `scale` so that a typical one is near 1.
  LinearFit(const Vector& prior, const Vector& scale);

  double Predict(const Vector& features) const;
  void Observe(const Vector& features, double target, double weight);
  Vector coefficients() const;  // of the features as they are given

 private:
  void Solve();

  const Vector scale_;
  Vector prior_;  // scaled, as are the coefficients
  Vector coefficients_;
  std::array<Vector, 3> gram_{};  // sum of weight * x * x^T, forgotten exponentially
  Vector moment_{};               // sum of weight * x * y
};

// A model as a value that travels: what a worker tells of its speed. Seconds for each feature.
struct StepCoefficients {
  LinearFit::Vector decode{};   // a step, a token of context, a sequence
  LinearFit::Vector prefill{};  // a step, a token, an attended pair

  double Predict(const StepShape& shape) const;
};

// Copyable; one thread at a time.
class StepModel {
 public:
  StepModel();

  // Seconds, > 0.
  double Predict(const StepShape& shape) const;

  // `seconds` of a step with `shape`. A stall far beyond the prediction counts only in part.
  void Observe(const StepShape& shape, double seconds);

  // Predicts what this model does now, but for its lower limit.
  StepCoefficients coefficients() const;

  // How many times their prediction the worst steps with both phases have taken of late, in [1, 2].
  double overrun() const { return overrun_; }

 private:
  double Decodes(const StepShape& shape) const;
  void ObserveOverrun(double factor);

  LinearFit decode_;
  LinearFit prefill_;
  int64_t observed_decode_ = 0;
  int64_t observed_prefill_ = 0;
  double overrun_;
};

}  // namespace kvasir::perf
