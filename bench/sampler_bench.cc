// The choice of one token from a row of logits, at the vocabularies of SmolLM2 and Llama 3.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "sample/sampler.h"

namespace kvasir::sample {
namespace {

void BM_Sample(benchmark::State& state, const SamplingParams& params) {
  std::vector<float> logits(state.range(0));
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 2);
  for (float& logit : logits) logit = normal(random);
  Sampler sampler;
  Position position;
  for (auto _ : state) {
    auto token = sampler.Sample(logits, params, position);
    if (!token.ok()) return state.SkipWithError("no token");
    benchmark::DoNotOptimize(token);
    ++position.index;
  }
  state.SetItemsProcessed(state.iterations());
}

void Vocabularies(benchmark::internal::Benchmark* one) {
  one->ArgName("vocab")->Arg(49152)->Arg(128256)->Unit(benchmark::kMicrosecond);
}

BENCHMARK_CAPTURE(BM_Sample, greedy, SamplingParams{.temperature = 0})->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Sample, temperature, SamplingParams{})->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Sample, top_k_50, SamplingParams{.top_k = 50})->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Sample, top_p_0_9, SamplingParams{.top_p = 0.9f})->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Sample, top_k_50_top_p_0_9, SamplingParams{.top_k = 50, .top_p = 0.9f})
    ->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Sample, min_p_0_05, SamplingParams{.min_p = 0.05f})->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Sample, greedy_logprobs_20, SamplingParams{.temperature = 0, .logprobs = 20})
    ->Apply(Vocabularies);

}  // namespace
}  // namespace kvasir::sample
