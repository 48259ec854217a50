#include "runtime/check_batch.h"

#include <algorithm>

#include <fmt/format.h>

namespace kvasir::runtime {

Status CheckBatch(const plan::Plan& plan, int32_t num_blocks, const Batch& batch,
                  const BatchOutput& output) {
  const auto fail = [](const std::string& what) { return absl::InternalError("batch: " + what); };
  int64_t tokens = 0;
  size_t logits = 0, hidden = 0, drawn = 0;
  const auto bad_block = [&](BlockId block) { return block < 0 || block >= num_blocks; };
  for (const BlockCopy& copy : batch.copies) {
    if (bad_block(copy.from) || bad_block(copy.to)) return fail("a copied block does not exist");
  }
  for (const BatchSequence& s : batch.sequences) {
    const int64_t end = s.start + static_cast<int64_t>(s.tokens.size());
    if (s.tokens.empty() || s.start < 0) return fail("a sequence has no tokens");
    if (end > plan.max_model_len) return fail("a sequence exceeds the context");
    if (static_cast<int64_t>(s.blocks.size()) * plan.kv.block_size < end) {
      return fail("a sequence has too few blocks");
    }
    for (BlockId block : s.blocks) {
      if (bad_block(block)) return fail("a block does not exist");
    }
    for (TokenId id : s.tokens) {
      if (id < 0 || id >= plan.vocab) return fail(fmt::format("token {} does not exist", id));
    }
    const int32_t count = static_cast<int32_t>(s.tokens.size());
    if (std::min(s.logits, s.hidden) != 0 || std::max(s.logits, s.hidden) > count) {
      return fail("a sequence wants rows that it has not");
    }
    tokens += count;
    (s.draw ? drawn : logits) += s.logits;
    hidden += s.hidden;
  }
  if (tokens > plan.max_batch_tokens) return fail("too many tokens");
  if (output.logits.size() != logits * plan.vocab || output.hidden.size() != hidden * plan.hidden ||
      output.drawn.size() != drawn) {
    return fail("the output has another size");
  }
  return absl::OkStatus();
}

}  // namespace kvasir::runtime
