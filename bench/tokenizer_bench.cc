// Text to token ids with the vocabulary of the default model, and ids back to text.
#include <benchmark/benchmark.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "cli/cache_dir.h"
#include "model/checkpoint.h"
#include "text/tokenizer.h"

namespace kvasir::text {
namespace {

// Null where the default model is not there.
const Tokenizer* DefaultTokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = []() -> std::unique_ptr<Tokenizer> {
    const auto checkpoint = model::LoadCheckpoint(cli::DefaultModelPath().string());
    if (!checkpoint.ok() || !checkpoint->text.gguf_vocab) return nullptr;
    auto made = Tokenizer::FromGguf(*checkpoint->text.gguf_vocab);
    return made.ok() ? *std::move(made) : nullptr;
  }();
  return tokenizer.get();
}

std::string Sonnets(size_t bytes) {
  static const std::string text = [] {
    std::ifstream file(KVASIR_TEST_DATA "/golden/text/sonnets.txt", std::ios::binary);
    std::ostringstream content;
    content << file.rdbuf();
    return content.str();
  }();
  return text.substr(0, bytes);
}

void BM_Encode(benchmark::State& state) {
  const Tokenizer* tokenizer = DefaultTokenizer();
  if (tokenizer == nullptr) return state.SkipWithError("run scripts/fetch_default_model.sh");
  const std::string text = Sonnets(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->Encode(text, true));
  state.counters["MB/s"] = benchmark::Counter(static_cast<double>(text.size()) / 1e6,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

void BM_Decode(benchmark::State& state) {
  const Tokenizer* tokenizer = DefaultTokenizer();
  if (tokenizer == nullptr) return state.SkipWithError("run scripts/fetch_default_model.sh");
  const std::string text = Sonnets(state.range(0));
  const auto ids = *tokenizer->Encode(text, true);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->Decode(ids, true));
  state.counters["MB/s"] = benchmark::Counter(static_cast<double>(text.size()) / 1e6,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(BM_Encode)->ArgName("bytes")->Arg(100)->Arg(1000)->Arg(16000)->UseRealTime();
BENCHMARK(BM_Decode)->ArgName("bytes")->Arg(1000)->Arg(16000)->UseRealTime();

}  // namespace
}  // namespace kvasir::text
