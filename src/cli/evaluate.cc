#include "cli/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <fmt/format.h>

namespace kvasir::cli {
namespace {

constexpr int32_t kRows = 64;  // of logits at a time

// Runs a window part by part and keeps the part's logits.
class Window {
 public:
  Window(runtime::Runner& runner, int32_t context) : runner_(runner) {
    blocks_.resize((context + runner.block_size() - 1) / runner.block_size());
    std::iota(blocks_.begin(), blocks_.end(), 0);
  }

  Status Run(absl::Span<const TokenId> tokens, int32_t start) {
    logits_.resize(tokens.size() * runner_.vocab_size());
    Batch batch;
    batch.sequences.push_back({.tokens = tokens,
                               .start = start,
                               .blocks = blocks_,
                               .logits = static_cast<int32_t>(tokens.size())});
    return runner_.Run(batch, {.logits = absl::MakeSpan(logits_)});
  }

  absl::Span<const float> Row(size_t i) const {
    const size_t vocab = runner_.vocab_size();
    return absl::MakeConstSpan(logits_).subspan(i * vocab, vocab);
  }

 private:
  runtime::Runner& runner_;
  std::vector<BlockId> blocks_;
  std::vector<float> logits_;
};

double LogSumExp(absl::Span<const float> row) {
  const double maximum = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp(x - maximum);
  return maximum + std::log(sum);
}

double Kl(absl::Span<const float> p, double p_norm, absl::Span<const float> q, double q_norm) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double log_p = p[i] - p_norm;
    sum += std::exp(log_p) * (log_p - (q[i] - q_norm));
  }
  return sum;
}

ptrdiff_t Best(absl::Span<const float> row) {
  return std::max_element(row.begin(), row.end()) - row.begin();
}

}  // namespace

double Evaluation::perplexity() const { return std::exp(nll); }
double Evaluation::reference_perplexity() const { return std::exp(reference_nll); }

StatusOr<Evaluation> Evaluate(runtime::Runner& model, runtime::Runner* reference,
                              absl::Span<const TokenId> tokens, int32_t context,
                              const std::function<void(int64_t, int64_t)>& progress) {
  if (reference != nullptr && reference->vocab_size() != model.vocab_size()) {
    return absl::InvalidArgumentError(fmt::format("reference: has {} tokens, the model {}",
                                                  reference->vocab_size(), model.vocab_size()));
  }
  Evaluation out;
  Window window(model, context);
  Window exact(reference != nullptr ? *reference : model, context);
  const int64_t total = static_cast<int64_t>(tokens.size());
  for (int64_t begin = 0; begin + 1 < total; begin += context) {
    const absl::Span<const TokenId> ids = tokens.subspan(begin, context);
    for (size_t start = 0; start + 1 < ids.size(); start += kRows) {
      const absl::Span<const TokenId> part = ids.subspan(start, kRows);
      KVASIR_RETURN_IF_ERROR(window.Run(part, static_cast<int32_t>(start)));
      if (reference != nullptr) {
        KVASIR_RETURN_IF_ERROR(exact.Run(part, static_cast<int32_t>(start)));
      }
      for (size_t i = 0; i < part.size() && start + i + 1 < ids.size(); ++i) {
        const TokenId next = ids[start + i + 1];
        const auto row = window.Row(i);
        const double norm = LogSumExp(row);
        ++out.tokens;
        out.nll += norm - row[next];
        if (reference == nullptr) continue;
        const auto want = exact.Row(i);
        const double want_norm = LogSumExp(want);
        out.reference_nll += want_norm - want[next];
        out.kl += Kl(want, want_norm, row, norm);
        out.same_best += Best(want) == Best(row) ? 1 : 0;
      }
      progress(begin + static_cast<int64_t>(start + part.size()), total);
    }
  }
  if (out.tokens == 0) return absl::InvalidArgumentError("text: has fewer than two tokens");
  const double count = static_cast<double>(out.tokens);
  for (double* sum : {&out.nll, &out.reference_nll, &out.kl, &out.same_best}) *sum /= count;
  return out;
}

}  // namespace kvasir::cli
