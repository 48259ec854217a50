// How well a compiled model predicts a text, and how far it lies from a reference.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <functional>

#include "base/status.h"
#include "core/sampling_params.h"
#include "runtime/runner.h"

namespace kvasir::cli {

struct Evaluation {
  int64_t tokens = 0;        // that were predicted
  double nll = 0;            // mean negative log-likelihood of them, in nats
  double reference_nll = 0;  // the reference's
  double kl = 0;             // mean KL(reference || model), in nats
  double same_best = 0;      // share of positions where both have the same likeliest token

  double perplexity() const;
  double reference_perplexity() const;
};

// The text is cut into windows of `context` tokens, each computed on its own; every token but the
// first of a window is predicted from those before it. `reference` may be null, else it has the
// same vocabulary. `progress` is told of the tokens done. The runners' KV holds a window.
StatusOr<Evaluation> Evaluate(runtime::Runner& model, runtime::Runner* reference,
                              absl::Span<const TokenId> tokens, int32_t context,
                              const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace kvasir::cli
