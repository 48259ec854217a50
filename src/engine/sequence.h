// A request in flight and its sequences: what the engine's thread alone changes.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/engine_client.h"
#include "core/request.h"
#include "engine/beam_search.h"
#include "engine/draft_model.h"
#include "engine/draft_policy.h"
#include "engine/guide_pool.h"
#include "engine/prompt_lookup.h"
#include "grammar/cursor.h"
#include "kv/block_pool.h"
#include "sample/beam_offer.h"
#include "sample/token_counts.h"
#include "schedule/step_plan.h"

namespace kvasir::engine {

class Sequence;

// The state of a request with beam search.
struct LiveBeams {
  // Every live beam has its row for the position: the next ones can be chosen.
  bool Complete() const;

  Beams search;
  std::vector<Sequence*> live;  // in the order of `search`: the best first
  int32_t last_number = 0;      // of a sequence; none has that of another
};

// One request, shared by the sequences of its choices or its beams.
struct Group {
  std::shared_ptr<const Request> request;
  std::shared_ptr<TokenSink> sink;
  int64_t number = 0;  // of acceptance
  TimePoint accepted{};
  int32_t max_tokens = 0;  // the request's, cut to what the context holds
  bool started = false;
  int32_t cached_tokens = 0;          // prompt tokens that a cached prefix gave at the start
  std::vector<int32_t> open_choices;  // without their finish event yet, ascending
  std::optional<LiveBeams> beams;
};

// One choice of a request; before the prompt is computed, all its open choices in one. With beam
// search it is one live beam, whose number takes the choice's place, and never a choice.
class Sequence {
 public:
  // Of all choices of `group`. With `hashed`, block hashes are kept for the prefix index. `cursor`
  // is the place in the request's constraint, or null.
  Sequence(std::shared_ptr<Group> group, int32_t block_size, bool hashed,
           std::unique_ptr<grammar::Cursor> cursor);

  // The same state for another choice, every block shared. REQUIRES: forked().
  std::unique_ptr<Sequence> Fork(int32_t choice) const;

  // Turns from all choices into `choice` alone.
  void BecomeChoice(int32_t choice);

  void Append(TokenId token);

  // It runs and its prompt is computed: the next pass yields a token.
  bool Decodes() const { return forked_ && computed < length() && computed + tail >= length(); }

  // Gives up all blocks, and what was made from them; the tokens stay.
  void ReleaseBlocks();
  // Gives up the blocks behind those that hold the computed tokens.
  void TrimBlocks();
  void AddBlock(kv::BlockRef block);
  void ReplaceBlock(int32_t index, kv::BlockRef block);

  Group& group() const { return *group_; }
  const std::shared_ptr<Group>& shared_group() const { return group_; }
  const Request& request() const { return *group_->request; }
  const SamplingParams& sampling() const { return group_->request->sampling; }
  int32_t choice() const { return choice_; }
  bool forked() const { return forked_; }
  // What becomes of it is the answer of choice() alone.
  bool IsOneChoice() const { return forked_ && !group_->beams; }
  schedule::Rank rank() const;

  int32_t length() const { return static_cast<int32_t>(tokens_.size()); }
  int32_t outputs() const {
    return length() - static_cast<int32_t>(group_->request->prompt_ids.size());
  }
  absl::Span<const TokenId> tokens() const { return tokens_; }
  const sample::TokenCounts* counts() const { return counts_ ? &*counts_ : nullptr; }

  // Hashes of the full blocks of the known tokens, and of those that a cached prefix may cover:
  // at least the last token is computed.
  absl::Span<const Hash128> block_hashes() const { return block_hashes_; }
  absl::Span<const Hash128> matchable_hashes() const;
  const Hash128& ParentHash(int32_t block) const;

  const std::vector<kv::BlockRef>& blocks() const { return blocks_; }
  absl::Span<const BlockId> page_table() const { return page_table_; }

  // Not null where the request has a constraint. Taken forward by Core with each token.
  const std::shared_ptr<grammar::Cursor>& cursor() const { return cursor_; }

  int32_t computed = 0;         // tokens whose KV is in the blocks
  int32_t tail = 1;             // tokens at the end that a decode computes together
  std::vector<TokenId> drafts;  // what the next pass may try behind the known tokens
  int32_t published = 0;        // blocks that the prefix index knows
  PromptLookup lookup;
  DraftRecord draft_record;
  DraftCost draft_check;              // what computing a draft takes, as last predicted
  std::unique_ptr<DraftKv> draft_kv;  // null until a draft model reads the sequence
  int32_t outputs_at_start = 0;       // outputs() when it last began to run
  bool done = false;                  // has had its finish event: to be removed
  // What the constraint allows next: on its way or there. None when nobody has asked yet.
  std::shared_ptr<GuideJob> guides;
  int32_t scored = 0;              // prompt positions whose rows have been taken
  std::vector<float> pooled;       // their hidden states, pooled
  std::vector<float> held_logits;  // a computed row that waits for its guides
  // Of a beam: what came of its row, until those of the other live beams are there. It needs no
  // blocks to be kept.
  std::optional<sample::BeamOffer> offer;

 private:
  Sequence(const Sequence& other, int32_t choice);

  std::shared_ptr<Group> group_;
  const int32_t block_size_;
  const bool hashed_;
  int32_t choice_ = 0;
  bool forked_ = false;
  std::vector<TokenId> tokens_;  // prompt and outputs
  std::optional<sample::TokenCounts> counts_;
  std::shared_ptr<grammar::Cursor> cursor_;
  Hash128 chain_;  // hash of the last full unit, or the root
  std::vector<Hash128> block_hashes_;
  std::vector<kv::BlockRef> blocks_;
  std::vector<BlockId> page_table_;  // the ids of blocks_
};

}  // namespace kvasir::engine
