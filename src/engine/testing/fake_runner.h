// A runner for tests: no model, but KV that tells. Each slot stores a value made from its token,
// its position and everything that the slots before it hold, read through the page table; the
// logits are made from the last one. A wrong block, a missed copy, a stale or a leaked block
// anywhere in a sequence's past gives other logits.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "runtime/runner.h"
#include "sample/sampler.h"

namespace kvasir::engine {

struct FakeRunnerOptions {
  int32_t vocab_size = 64;
  int32_t block_size = 16;
  int32_t num_blocks = 64;
  int32_t max_batch_tokens = 1 << 20;
  int threads = 1;
  bool draws = false;
};

class FakeRunner final : public runtime::Runner {
 public:
  static constexpr int32_t kHidden = 8;

  explicit FakeRunner(FakeRunnerOptions options)
      : options_(options),
        slots_(static_cast<size_t>(options.num_blocks) * options.block_size),
        pool_(options.threads) {}

  // Called at the start of each pass: may fail it, advance a clock, or count.
  std::function<Status(const Batch&)> on_run;
  // Changes the finished logits.
  std::function<void(const Batch&, absl::Span<float>)> on_logits;

  // Why nothing runs any more: every pass fails with it.
  Status broken;

  // Plants a fault: copy-on-write copies are not made.
  bool skip_copies = false;

  int32_t vocab_size() const override { return options_.vocab_size; }
  int32_t hidden_size() const override { return kHidden; }
  int32_t block_size() const override { return options_.block_size; }
  int32_t num_blocks() const override { return options_.num_blocks; }
  int32_t max_batch_tokens() const override { return options_.max_batch_tokens; }
  Status failure() const override { return broken; }
  bool draws() const override { return options_.draws; }
  ThreadPool& pool() override { return pool_; }

  int64_t computed_tokens() const { return computed_tokens_; }
  int64_t drawn_tokens() const { return drawn_tokens_; }

  Status Run(const Batch& batch, const BatchOutput& output) override {
    if (on_run) KVASIR_RETURN_IF_ERROR(on_run(batch));
    KVASIR_RETURN_IF_ERROR(broken);
    CheckWrites(batch);
    for (const BlockCopy& copy : batch.copies) {
      if (skip_copies) break;
      for (int32_t i = 0; i < options_.block_size; ++i) {
        slots_[Index(copy.to, i)] = slots_[Index(copy.from, i)];
      }
    }
    size_t logits = 0, hidden = 0, drawn = 0;
    std::vector<float> row(options_.vocab_size);
    for (const BatchSequence& sequence : batch.sequences) {
      const std::vector<uint64_t> states = Compute(sequence);
      for (size_t i = states.size() - sequence.logits; i < states.size(); ++i) {
        if (sequence.draw) {
          Fill(states[i], absl::MakeSpan(row));
          output.drawn[drawn++] = *sampler_.Draw(row, *sequence.draw);
          continue;
        }
        Fill(states[i], output.logits.subspan(logits++ * options_.vocab_size, options_.vocab_size));
      }
      for (size_t i = states.size() - sequence.hidden; i < states.size(); ++i) {
        Fill(states[i], output.hidden.subspan(hidden++ * kHidden, kHidden));
      }
    }
    drawn_tokens_ += static_cast<int64_t>(drawn);
    KVASIR_CHECK(logits * options_.vocab_size == output.logits.size() &&
                     drawn == output.drawn.size() && hidden * kHidden == output.hidden.size(),
                 "the output has room for exactly the rows that are wanted");
    if (on_logits) on_logits(batch, output.logits);
    return absl::OkStatus();
  }

  // The values in a block's slots: what its KV would be.
  std::vector<uint64_t> BlockContent(BlockId id) const {
    const auto first = slots_.begin() + static_cast<int64_t>(Index(id, 0));
    return {first, first + options_.block_size};
  }

 private:
  static uint64_t Mix(uint64_t x) {  // splitmix64's finalizer
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  }

  size_t Index(BlockId block, int32_t offset) const {
    return static_cast<size_t>(block) * options_.block_size + offset;
  }

  uint64_t& Slot(const BatchSequence& sequence, int32_t position) {
    return slots_[Index(sequence.blocks[position / options_.block_size],
                        position % options_.block_size)];
  }

  // Returns for each token the sum over all positions up to it, which is what attention would see.
  std::vector<uint64_t> Compute(const BatchSequence& sequence) {
    std::vector<uint64_t> states;
    uint64_t past = 0;
    for (int32_t p = 0; p < sequence.start; ++p) past += Mix(Slot(sequence, p) + p);
    int32_t p = sequence.start;
    for (TokenId token : sequence.tokens) {
      Slot(sequence, p) = Mix(past ^ Mix(static_cast<uint64_t>(token) << 32 | (p + 1)));
      past += Mix(Slot(sequence, p) + p);
      states.push_back(past);
      ++p;
    }
    computed_tokens_ += static_cast<int64_t>(sequence.tokens.size());
    return states;
  }

  static void Fill(uint64_t state, absl::Span<float> row) {
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = static_cast<float>(Mix(state + i) >> 40) * 0x1p-24f * 8.0f - 4.0f;
    }
  }

  // The contract of BatchSequence::blocks: what is written is held by its sequence alone.
  void CheckWrites(const Batch& batch) const {
    std::set<BlockId> written;
    for (const BatchSequence& s : batch.sequences) {
      const int32_t end = s.start + static_cast<int32_t>(s.tokens.size());
      KVASIR_CHECK(!s.tokens.empty() && end <= static_cast<int32_t>(s.blocks.size()) * block_size(),
                   "the page table covers the pass");
      for (int32_t b = s.start / block_size(); b <= (end - 1) / block_size(); ++b) {
        KVASIR_CHECK(written.insert(s.blocks[b]).second, "a block is written by one sequence");
      }
    }
    for (const BatchSequence& s : batch.sequences) {
      for (int32_t b = 0; b < s.start / block_size(); ++b) {
        KVASIR_CHECK(!written.contains(s.blocks[b]), "a block that others read is not written");
      }
    }
  }

  const FakeRunnerOptions options_;
  std::vector<uint64_t> slots_;  // [num_blocks, block_size]
  sample::Sampler sampler_;
  ThreadPool pool_;
  int64_t computed_tokens_ = 0;
  int64_t drawn_tokens_ = 0;
};

}  // namespace kvasir::engine
