// The rows of a batch: what each token is, where it stands, and which of them give a result.
#pragma once

#include <cstdint>
#include <vector>

#include "core/batch.h"

namespace kvasir::runtime {

struct BatchRows {
  std::vector<TokenId> tokens;
  std::vector<int32_t> positions;
  std::vector<int32_t> sequences;  // index into the batch's
  std::vector<int32_t> outputs;    // rows that give logits, then those that give hidden states
  int64_t logit_rows = 0;          // how many of `outputs` give logits

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  // Keeps the memory of the batch before.
  void Set(const Batch& batch);
};

}  // namespace kvasir::runtime
