// Distributions of measured times.
#pragma once

#include <cstddef>
#include <vector>

namespace kvasir::loadgen {

struct Distribution {
  size_t count = 0;
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double max = 0;
};

// The value below which `percent` of the sorted values lie, between neighbours by straight
// interpolation (NumPy's default). 0 for no values. percent in [0, 100].
double Percentile(const std::vector<double>& sorted, double percent);

Distribution Summarize(std::vector<double> values);

}  // namespace kvasir::loadgen
