// What the prefix cache costs a request: hashes of its blocks, a match, and publishing.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "core/block_hash.h"
#include "kv/prefix_index.h"

namespace kvasir::kv {
namespace {

constexpr int32_t kBlock = kHashUnitTokens;

std::vector<TokenId> RandomTokens(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> out(count);
  for (TokenId& id : out) id = static_cast<TokenId>(random() % 49152);
  return out;
}

Hash128 Root() { return CacheRoot("weights", "numerics", "", ""); }

void BM_HashUnits(benchmark::State& state) {
  const std::vector<TokenId> tokens = RandomTokens(state.range(0), 1);
  for (auto _ : state) benchmark::DoNotOptimize(HashUnits(Root(), tokens));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

// An index full of prompts of 64 blocks, each with nothing in common.
class FullIndex {
 public:
  explicit FullIndex(int32_t blocks) : pool_(blocks) {
    for (int32_t i = 0; i < blocks / kPromptBlocks; ++i) Publish(i);
  }

  std::vector<Hash128> Hashes(int32_t prompt) const {
    return HashUnits(Root(), RandomTokens(int64_t{kPromptBlocks} * kBlock, prompt));
  }

  void Publish(const std::vector<Hash128>& hashes, absl::Span<const TokenId> tokens) {
    std::vector<BlockRef> held;
    for (size_t i = 0; i < hashes.size(); ++i) {
      if (pool_.free() == 0) index_.Evict(1);
      held.push_back(index_.Insert(hashes[i], i > 0 ? hashes[i - 1] : Root(), i == 0,
                                   tokens.subspan(i * kBlock, kBlock), pool_.Allocate()));
    }
  }

  void Publish(int32_t prompt) {
    const auto tokens = RandomTokens(int64_t{kPromptBlocks} * kBlock, prompt);
    Publish(HashUnits(Root(), tokens), tokens);
  }

  PrefixIndex& index() { return index_; }

  static constexpr int32_t kPromptBlocks = 64;

 private:
  BlockPool pool_;
  PrefixIndex index_{pool_};
};

void BM_Match(benchmark::State& state) {
  const auto blocks = static_cast<int32_t>(state.range(0));
  FullIndex full(blocks);
  std::vector<std::vector<Hash128>> prompts;
  for (int32_t i = 0; i < blocks / FullIndex::kPromptBlocks; ++i) prompts.push_back(full.Hashes(i));
  size_t next = 0;
  for (auto _ : state) {
    const auto refs = full.index().Match(prompts[next]);
    if (refs.size() != FullIndex::kPromptBlocks) return state.SkipWithError("a block is missing");
    next = (next + 7919) % prompts.size();
  }
  state.SetItemsProcessed(state.iterations() * FullIndex::kPromptBlocks);
}

void BM_Miss(benchmark::State& state) {
  FullIndex full(static_cast<int32_t>(state.range(0)));
  const std::vector<Hash128> hashes = full.Hashes(1 << 30);
  for (auto _ : state) benchmark::DoNotOptimize(full.index().Match(hashes));
  state.SetItemsProcessed(state.iterations());
}

// New prompts, each block of which pushes out the least recently used one.
void BM_InsertAndEvict(benchmark::State& state) {
  FullIndex full(static_cast<int32_t>(state.range(0)));
  const auto tokens = RandomTokens(int64_t{FullIndex::kPromptBlocks} * kBlock, 1 << 30);
  uint64_t salt = 0;
  for (auto _ : state) {
    state.PauseTiming();
    const auto hashes =
        HashUnits(CacheRoot("weights", "numerics", "", std::to_string(salt++)), tokens);
    state.ResumeTiming();
    full.Publish(hashes, tokens);
  }
  state.SetItemsProcessed(state.iterations() * FullIndex::kPromptBlocks);
}

BENCHMARK(BM_HashUnits)->ArgName("tokens")->Arg(1024)->Arg(16384)->Arg(60000);
BENCHMARK(BM_Match)->ArgName("blocks")->Arg(1 << 10)->Arg(1 << 14)->Arg(1 << 17);
BENCHMARK(BM_Miss)->ArgName("blocks")->Arg(1 << 14);
BENCHMARK(BM_InsertAndEvict)->ArgName("blocks")->Arg(1 << 10)->Arg(1 << 17);

}  // namespace
}  // namespace kvasir::kv
