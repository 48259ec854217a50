#include "runtime/batch_rows.h"

namespace kvasir::runtime {

void BatchRows::Set(const Batch& batch) {
  tokens.clear();
  positions.clear();
  sequences.clear();
  outputs.clear();
  std::vector<int32_t> hidden_rows;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const BatchSequence& sequence = batch.sequences[s];
    for (size_t i = 0; i < sequence.tokens.size(); ++i) {
      tokens.push_back(sequence.tokens[i]);
      positions.push_back(sequence.start + static_cast<int32_t>(i));
      sequences.push_back(static_cast<int32_t>(s));
    }
    const int32_t end = static_cast<int32_t>(tokens.size());
    for (int32_t r = end - sequence.logits; r < end; ++r) outputs.push_back(r);
    for (int32_t r = end - sequence.hidden; r < end; ++r) hidden_rows.push_back(r);
  }
  logit_rows = static_cast<int64_t>(outputs.size());
  outputs.insert(outputs.end(), hidden_rows.begin(), hidden_rows.end());
}

}  // namespace kvasir::runtime
