// What the weights of a model are multiplied with, for rounding that takes it into account.
#pragma once

#include <string>

#include "base/status.h"
#include "ops/calibrated_rounding.h"

namespace kvasir::compile {

class Calibration {
 public:
  virtual ~Calibration() = default;

  // Names all that decides the rounding besides the checkpoint.
  virtual std::string id() const = 0;

  // Of what the matrix is multiplied with; null: unknown. Good until the next call. Cheapest in the
  // order of the graph.
  virtual StatusOr<const ops::RoundingFactor*> FactorOf(const std::string& weight) = 0;
};

}  // namespace kvasir::compile
