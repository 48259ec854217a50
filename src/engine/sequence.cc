#include "engine/sequence.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "core/block_hash.h"

namespace kvasir::engine {

bool LiveBeams::Complete() const {
  return std::all_of(live.begin(), live.end(),
                     [](const Sequence* beam) { return beam->offer.has_value(); });
}

Sequence::Sequence(std::shared_ptr<Group> group, int32_t block_size, bool hashed,
                   std::unique_ptr<grammar::Cursor> cursor)
    : group_(std::move(group)),
      block_size_(block_size),
      hashed_(hashed),
      tokens_(group_->request->prompt_ids),
      cursor_(std::move(cursor)),
      chain_(group_->request->hash_root) {
  if (sample::UsesPenalties(sampling())) counts_.emplace().AddPrompt(tokens_);
  if (!hashed_) return;
  std::vector<Hash128> computed_here;
  const std::vector<Hash128>* units = &request().unit_hashes;
  if (units->size() != tokens_.size() / kHashUnitTokens) {
    computed_here = HashUnits(request().hash_root, tokens_);
    units = &computed_here;
  }
  if (!units->empty()) chain_ = units->back();
  const size_t units_a_block = block_size / kHashUnitTokens;
  for (size_t last = units_a_block - 1; last < units->size(); last += units_a_block) {
    block_hashes_.push_back((*units)[last]);
  }
}

Sequence::Sequence(const Sequence& other, int32_t choice)
    : computed(other.computed),
      tail(other.tail),
      drafts(other.drafts),
      published(other.published),
      lookup(other.lookup),
      draft_record(other.draft_record),
      draft_check(other.draft_check),
      outputs_at_start(other.outputs_at_start),
      scored(other.scored),
      group_(other.group_),
      block_size_(other.block_size_),
      hashed_(other.hashed_),
      choice_(choice),
      forked_(true),
      tokens_(other.tokens_),
      counts_(other.counts_),
      cursor_(other.cursor_ ? other.cursor_->Clone() : nullptr),
      chain_(other.chain_),
      block_hashes_(other.block_hashes_),
      page_table_(other.page_table_) {
  blocks_.reserve(other.blocks_.size());
  for (const kv::BlockRef& block : other.blocks_) blocks_.push_back(block.Share());
}

std::unique_ptr<Sequence> Sequence::Fork(int32_t choice) const {
  KVASIR_CHECK(forked_, "a choice is forked from a choice");
  return std::unique_ptr<Sequence>(new Sequence(*this, choice));
}

void Sequence::BecomeChoice(int32_t choice) {
  choice_ = choice;
  forked_ = true;
}

void Sequence::Append(TokenId token) {
  tokens_.push_back(token);
  if (counts_) counts_->AddOutput(token);
  if (!hashed_ || tokens_.size() % kHashUnitTokens != 0) return;
  chain_ = HashUnit(chain_, absl::MakeConstSpan(tokens_).last(kHashUnitTokens));
  if (tokens_.size() % block_size_ == 0) block_hashes_.push_back(chain_);
}

void Sequence::ReleaseBlocks() {
  blocks_.clear();
  page_table_.clear();
  computed = 0;
  published = 0;
  tail = 1;
  drafts.clear();
  draft_kv.reset();
  held_logits.clear();
}

void Sequence::TrimBlocks() {
  const size_t blocks = (computed + block_size_ - 1) / block_size_;
  while (blocks_.size() > blocks) {
    blocks_.pop_back();
    page_table_.pop_back();
  }
}

void Sequence::AddBlock(kv::BlockRef block) {
  page_table_.push_back(block.id());
  blocks_.push_back(std::move(block));
}

void Sequence::ReplaceBlock(int32_t index, kv::BlockRef block) {
  page_table_[index] = block.id();
  blocks_[index] = std::move(block);
}

schedule::Rank Sequence::rank() const {
  return schedule::MakeRank(request().priority, group_->accepted, group_->number, choice_);
}

absl::Span<const Hash128> Sequence::matchable_hashes() const {
  if (request().NeedsPromptRows()) return {};
  const size_t most = (tokens_.size() - 1) / block_size_;
  return absl::MakeConstSpan(block_hashes_).first(std::min(most, block_hashes_.size()));
}

const Hash128& Sequence::ParentHash(int32_t block) const {
  return block == 0 ? request().hash_root : block_hashes_[block - 1];
}

}  // namespace kvasir::engine
