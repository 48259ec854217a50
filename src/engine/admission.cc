#include "engine/admission.h"

#include <algorithm>
#include <cmath>

#include "core/block_hash.h"

namespace kvasir::engine {
namespace {

constexpr int32_t kMaxPromptLogprobs = 20;

}  // namespace

Status CheckOptions(const EngineOptions& options) {
  if (options.max_num_seqs < 1) {
    return absl::InvalidArgumentError("max_num_seqs: must be at least 1");
  }
  if (options.max_num_batched_tokens < 1) {
    return absl::InvalidArgumentError("max_num_batched_tokens: must be at least 1");
  }
  if (options.guide_threads < 1) {
    return absl::InvalidArgumentError("guide_threads: must be at least 1");
  }
  if (options.max_drafts < 0) {
    return absl::InvalidArgumentError("max_drafts: must not be negative");
  }
  if (options.max_queue < 1) return absl::InvalidArgumentError("max_queue: must be at least 1");
  if (options.itl_target <= Duration::zero() || options.prefill_step_target <= Duration::zero()) {
    return absl::InvalidArgumentError("itl_target: step time targets must be positive");
  }
  return absl::OkStatus();
}

StatusOr<ModelInfo> FitModel(ModelInfo model, const runtime::Runner& runner) {
  if (runner.block_size() < kHashUnitTokens || runner.block_size() % kHashUnitTokens != 0) {
    return absl::InvalidArgumentError("block_size: must be a multiple of 16");
  }
  if (model.vocab_size != runner.vocab_size() || model.block_size != runner.block_size()) {
    return absl::InvalidArgumentError("the runner has another vocabulary or block size");
  }
  const int64_t capacity = int64_t{runner.num_blocks()} * runner.block_size();
  model.max_model_len = static_cast<int32_t>(std::min<int64_t>(model.max_model_len, capacity));
  if (model.max_model_len < 2) {
    return absl::InvalidArgumentError("the KV blocks do not hold one prompt token and one output");
  }
  return model;
}

Status CheckDraftRunner(const ModelInfo& model, const EngineOptions& options) {
  if (options.draft_runner == nullptr) return absl::OkStatus();
  if (options.max_drafts == 0) {
    return absl::InvalidArgumentError("max_drafts: a draft model needs a number of drafts");
  }
  const int32_t drafts = options.draft_runner->vocab_size();
  if (drafts == model.vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("draft_model: has a vocabulary of ", drafts,
                                                 " tokens, and the model one of ",
                                                 model.vocab_size));
}

namespace {

Status CheckPromptRows(const Request& request) {
  if (request.prompt_logprobs < -1 || request.prompt_logprobs > kMaxPromptLogprobs) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt_logprobs: must be in [0, ", kMaxPromptLogprobs, "]"));
  }
  if (request.pooling == Pooling::kNone) return absl::OkStatus();
  if (request.sampling.max_tokens != 0 || request.sampling.n != 1 || request.prompt_logprobs >= 0) {
    return absl::InvalidArgumentError("pooling: an embedding has one choice and no tokens");
  }
  return absl::OkStatus();
}

Status CheckBeams(const Request& request, const EngineOptions& options) {
  if (!request.beams) return absl::OkStatus();
  if (request.pooling != Pooling::kNone) {
    return absl::InvalidArgumentError("use_beam_search: an embedding has no output to search for");
  }
  if (!std::isfinite(request.beams->length_penalty)) {
    return absl::InvalidArgumentError("length_penalty: must be a finite number");
  }
  if (request.sampling.n > options.max_num_seqs) {
    return absl::InvalidArgumentError(
        absl::StrCat("n: use_beam_search keeps at most ", options.max_num_seqs,
                     " beams, as many sequences as run at once here"));
  }
  return absl::OkStatus();
}

}  // namespace

Status CheckRequest(const Request& request, const ModelInfo& model, const EngineOptions& options) {
  if (request.prompt_ids.empty()) return absl::InvalidArgumentError("prompt: is empty");
  if (request.prompt_ids.size() >= static_cast<size_t>(model.max_model_len)) {
    return absl::InvalidArgumentError(absl::StrCat("prompt: ", request.prompt_ids.size(),
                                                   " tokens leave no room for output in ",
                                                   model.max_model_len, " tokens of context"));
  }
  for (TokenId id : request.prompt_ids) {
    if (id < 0 || id >= model.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "prompt: token id ", id, " is outside the vocabulary of ", model.vocab_size));
    }
  }
  if (request.sampling.max_tokens < 1 && !request.NeedsPromptRows()) {
    return absl::InvalidArgumentError("max_tokens: must be at least 1");
  }
  KVASIR_RETURN_IF_ERROR(CheckPromptRows(request));
  KVASIR_RETURN_IF_ERROR(CheckBeams(request, options));
  return Validate(request.sampling, model.vocab_size);
}

}  // namespace kvasir::engine
