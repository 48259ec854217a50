// Calibration by a text: the model reads it, and what each product reads is kept.
#pragma once

#include <absl/types/span.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compile/calibration.h"
#include "compile/compiler.h"
#include "core/sampling_params.h"
#include "model/checkpoint.h"
#include "runtime/plan_runner.h"

namespace kvasir::cli {

// One thread at a time.
class TextCalibration final : public compile::Calibration {
 public:
  // Of `options` the kernels count. The model computes as it would be served, its weights as they
  // are stored. InvalidArgument for fewer tokens than tell anything.
  static StatusOr<std::unique_ptr<TextCalibration>> Create(
      std::shared_ptr<const model::Checkpoint> checkpoint, std::vector<TokenId> tokens,
      const compile::CompileOptions& options, int threads);

  std::string id() const override;
  // The text is read again for every kMomentBytes of moments. Null for matrices of experts, and for
  // those whose columns are stored in another order.
  StatusOr<const ops::RoundingFactor*> FactorOf(const std::string& weight) override;

 private:
  TextCalibration(std::unique_ptr<runtime::PlanRunner> runner, std::vector<TokenId> tokens)
      : runner_(std::move(runner)), tokens_(std::move(tokens)) {}

  void FindProducts(const std::vector<std::vector<std::string>>& weights);
  Status Read(size_t first_node);

  const std::unique_ptr<runtime::PlanRunner> runner_;
  const std::vector<TokenId> tokens_;
  std::map<std::string, size_t> node_of_;                // by weight
  std::map<graph::ValueId, ops::InputMoments> moments_;  // of what was read and not yet asked for
  graph::ValueId factor_of_ = -1;                        // whose factor_ is
  std::optional<ops::RoundingFactor> factor_;
};

}  // namespace kvasir::cli
