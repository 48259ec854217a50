// Beam search in the engine: its answers are those of the plain search over rows that are computed
// one output at a time, whatever the engine does with the beams.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "core/block_hash.h"
#include "engine/admission.h"
#include "engine/core.h"
#include "engine/testing/fake_grammar.h"
#include "engine/testing/fake_runner.h"
#include "engine/testing/naive_beams.h"
#include "engine/testing/recording_sink.h"
#include "sample/logprobs.h"
#include "sample/weights.h"

namespace kvasir::engine {
namespace {

constexpr int32_t kVocab = 64;
constexpr int32_t kEos = 0;

std::shared_ptr<const FakeGrammar> GrammarOf(const Request& request) {
  return std::make_shared<FakeGrammar>(
      FakeGrammarOptions{.length = 12, .seed = request.sampling.seed});
}

std::unique_ptr<grammar::Cursor> CursorOf(const Request& request) {
  if (!request.constraint) return nullptr;
  return *grammar::Cursor::Create(GrammarOf(request), kVocab, {kEos});
}

// The row behind a prompt and an output, computed alone.
std::vector<float> RowAfter(const Request& request, absl::Span<const TokenId> output) {
  std::vector<TokenId> tokens = request.prompt_ids;
  tokens.insert(tokens.end(), output.begin(), output.end());
  FakeRunner runner({.num_blocks = static_cast<int32_t>(tokens.size()) / 16 + 1});
  std::vector<BlockId> blocks(runner.num_blocks());
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<BlockId>(i);
  std::vector<float> row(kVocab);
  const Status ran = runner.Run({.sequences = {{.tokens = tokens, .blocks = blocks, .logits = 1}}},
                                {.logits = absl::MakeSpan(row)});
  EXPECT_TRUE(ran.ok()) << ran;
  return row;
}

// The log-probabilities that beam search goes by, from the very definition.
std::vector<double> ProcessedLogprobs(const Request& request, absl::Span<const TokenId> output) {
  std::vector<double> logprobs(kVocab, -std::numeric_limits<double>::infinity());
  sample::TokenCounts counts;
  counts.AddPrompt(request.prompt_ids);
  for (const TokenId id : output) counts.AddOutput(id);
  const std::vector<TokenId> eos_ids = {kEos};
  sample::Position position{.index = static_cast<int32_t>(output.size()),
                            .counts = &counts,
                            .output = output,
                            .eos_ids = eos_ids};
  grammar::Guide guide;
  if (request.constraint) {
    const auto cursor = CursorOf(request);
    for (const TokenId id : output) EXPECT_TRUE(cursor->Advance(id).ok());
    guide = *cursor->NextGuide();
    if (guide.forced) {
      logprobs[*guide.forced] = 0;
      return logprobs;
    }
    position.allowed = guide.mask;
  }
  std::vector<float> row = RowAfter(request, output);
  sample::ProcessLogits(request.sampling, position, absl::MakeSpan(row));
  if (!sample::FindBest(row)) return logprobs;
  const sample::LogSoftmax softmax(row);
  for (size_t id = 0; id < row.size(); ++id) logprobs[id] = softmax.Of(row[id]);
  return logprobs;
}

std::vector<NaiveHypothesis> NaiveAnswer(const Request& request) {
  std::vector<TokenId> ends = request.sampling.stop_token_ids;
  if (!request.sampling.ignore_eos || request.constraint) ends.push_back(kEos);
  const NaiveBeamSearch search{.rules = *request.beams,
                               .width = static_cast<size_t>(request.sampling.n),
                               .max_tokens = static_cast<size_t>(request.sampling.max_tokens),
                               .ends = ends,
                               .logprobs = [&request](absl::Span<const TokenId> output) {
                                 return ProcessedLogprobs(request, output);
                               }};
  return search.Run();
}

class Generator {
 public:
  explicit Generator(uint32_t seed) : random_(seed) {}

  int32_t Pick(int32_t below) { return static_cast<int32_t>(random_() % below); }

  Request Next() {
    Request request = Sampled();
    request.beams = BeamSearch{.length_penalty = static_cast<float>(Pick(4)) * 0.5f,
                               .early_stopping = Pick(2) == 0};
    return request;
  }

  // Some are the beginnings of others.
  Request Sampled() {
    Request request;
    request.id = absl::StrCat("r", next_++);
    request.prompt_ids.assign(Pick(3) ? 20 : 0, 5);
    for (int32_t i = 1 + Pick(40); i > 0; --i) request.prompt_ids.push_back(Pick(kVocab));
    request.hash_root = CacheRoot("w", "n", "", "");
    request.unit_hashes = HashUnits(request.hash_root, request.prompt_ids);
    SamplingParams& params = request.sampling;
    params.n = 1 + Pick(4);
    params.max_tokens = 1 + Pick(24);
    params.seed = random_();
    params.logprobs = Pick(4) - 1;
    params.ignore_eos = Pick(2) == 0;
    // Half of the vocabulary, or else too few would end.
    for (TokenId id = 1; Pick(2) && id < kVocab; id += 2) params.stop_token_ids.push_back(id);
    if (Pick(4) == 0) params.min_tokens = Pick(params.max_tokens);
    if (Pick(4) == 0) params.repetition_penalty = 1.5f;
    if (Pick(4) == 0) params.frequency_penalty = 1.0f;
    if (Pick(4) == 0) params.logit_bias = {{5, 3.0f}, {6, 4.0f}};
    if (Pick(4) == 0) params.bad_words = {{7}, {5, 6}};
    if (Pick(6) == 0) {
      for (TokenId id = 3 * Pick(2); id <= 3; ++id) params.allowed_token_ids.push_back(id);
    }
    if (Pick(3) == 0) {
      request.constraint = Constraint{};
      params.allowed_token_ids.clear();
    }
    if (Pick(6) == 0) request.prompt_logprobs = 1;
    return request;
  }

 private:
  std::mt19937 random_;
  int next_ = 0;
};

class Engine {
 public:
  explicit Engine(const FakeRunnerOptions& runner = {}, const EngineOptions& options = {})
      : runner_(runner) {
    const ModelInfo model{
        .vocab_size = kVocab, .max_model_len = 512, .block_size = 16, .eos_ids = {kEos}};
    core.emplace(runner_, *FitModel(model, runner_), options, clock_);
  }

  std::shared_ptr<RecordingSink> Add(const Request& request) {
    auto sink = std::make_shared<RecordingSink>();
    const Status added = core->Add(std::make_shared<Request>(request), sink, CursorOf(request));
    EXPECT_TRUE(added.ok()) << added;
    return sink;
  }

  void RunToEnd() {
    int64_t steps = 0;
    while (core->Step()) {
      ASSERT_LT(++steps, 50000);
      ASSERT_TRUE(core->CheckIntegrity().ok()) << core->CheckIntegrity();
    }
    EXPECT_TRUE(core->idle());
    EXPECT_EQ(core->stats().blocks_held, 0);
  }

 private:
  ManualClock clock_;

 public:
  FakeRunner runner_;
  std::optional<Core> core;
};

void ExpectAnswer(const Request& request, RecordingSink& sink,
                  const std::vector<NaiveHypothesis>& expected) {
  SCOPED_TRACE(request.id);
  ASSERT_TRUE(sink.Finished(request.sampling.n));
  for (int32_t c = 0; c < request.sampling.n; ++c) {
    const RecordingSink::Choice& choice = sink.choices[c];
    if (expected.empty()) {
      EXPECT_EQ(choice.finish, FinishReason::kError);
      continue;
    }
    const bool exists = static_cast<size_t>(c) < expected.size();
    const NaiveHypothesis wanted = exists ? expected[c] : NaiveHypothesis{.stopped = true};
    EXPECT_EQ(choice.tokens, wanted.tokens) << "rank " << c;
    EXPECT_EQ(choice.finish, wanted.stopped ? FinishReason::kStop : FinishReason::kLength)
        << choice.error;
  }
}

// As a sampled request would report the same tokens.
void ExpectReports(const Request& request, RecordingSink& sink) {
  for (const auto& [index, choice] : sink.choices) {
    for (size_t i = 0; i < choice.outs.size(); ++i) {
      const std::vector<float> row = RowAfter(request, absl::MakeConstSpan(choice.tokens).first(i));
      EXPECT_EQ(choice.outs[i],
                *sample::Sampler::Report(row, request.sampling.logprobs, choice.tokens[i]));
    }
  }
}

struct Conditions {
  std::string name;
  FakeRunnerOptions runner;
  EngineOptions options;
};

std::vector<Conditions> AllConditions() {
  FakeRunnerOptions tiny, two_threads;
  tiny.num_blocks = 8;
  two_threads.threads = 2;
  EngineOptions uncached;
  uncached.enable_prefix_caching = false;
  EngineOptions preempting;
  preempting.test.preempt_every_n_steps = 1;
  EngineOptions late;
  late.test.late_guide_every_n = 2;
  EngineOptions harsh{.max_num_seqs = 4, .max_num_batched_tokens = 7};
  harsh.enable_prefix_caching = false;
  harsh.max_drafts = 4;
  harsh.test = {.preempt_every_n_steps = 1, .always_draft = true, .late_guide_every_n = 3};
  return {
      {"plain", {}, {}},
      {"two threads", two_threads, {}},
      {"uncached", {}, uncached},
      {"tiny pool", tiny, {}},
      {"tiny pool, uncached", tiny, uncached},
      {"chunks of 7", {}, {.max_num_batched_tokens = 7}},
      {"two tokens a step", {}, {.max_num_batched_tokens = 2}},
      {"four slots", {}, {.max_num_seqs = 4}},
      {"preempting", {}, preempting},
      {"preempting in a tiny pool", tiny, preempting},
      {"late guides", {}, late},
      {"everything in a tiny pool", tiny, harsh},
  };
}

TEST(BeamsInTheEngineTest, AnswerAsThePlainSearchWhateverHappens) {
  Generator generator(1);
  std::vector<Request> requests;
  std::vector<std::vector<NaiveHypothesis>> expected;
  size_t stopped = 0, cut = 0, fewer = 0;
  for (int i = 0; i < 60; ++i) {
    requests.push_back(generator.Next());
    expected.push_back(NaiveAnswer(requests.back()));
    for (const NaiveHypothesis& h : expected.back()) ++(h.stopped ? stopped : cut);
    fewer += expected.back().size() < static_cast<size_t>(requests.back().sampling.n);
  }
  EXPECT_GT(stopped, 20u);
  EXPECT_GT(cut, 20u);
  EXPECT_GT(fewer, 0u);
  for (const Conditions& conditions : AllConditions()) {
    SCOPED_TRACE(conditions.name);
    Engine engine(conditions.runner, conditions.options);
    Generator others(2);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const Request& request : requests) {
      sinks.push_back(engine.Add(request));
      Request other = others.Sampled();
      other.id = "other " + other.id;
      engine.Add(other);
      for (int32_t steps = others.Pick(6); steps > 0; --steps) engine.core->Step();
    }
    ASSERT_NO_FATAL_FAILURE(engine.RunToEnd());
    for (size_t i = 0; i < requests.size(); ++i) {
      ExpectAnswer(requests[i], *sinks[i], expected[i]);
      if (conditions.name == "plain") ExpectReports(requests[i], *sinks[i]);
    }
    const EngineStats stats = engine.core->stats();
    EXPECT_GT(stats.forks, 100);
    if (conditions.runner.num_blocks > 8) {
      EXPECT_GT(stats.copy_on_writes, 50);
    }
    if (conditions.options.test.preempt_every_n_steps > 0 || conditions.runner.num_blocks == 8) {
      EXPECT_GT(stats.preemptions, 100);
    }
    if (conditions.options.test.late_guide_every_n > 0) {
      EXPECT_GT(stats.late_guides, 100);
    }
  }
}

Request BeamRequest(int32_t n, int32_t prompt = 40, int32_t max_tokens = 8) {
  Request request;
  request.id = "beams";
  for (int32_t i = 0; i < prompt; ++i) request.prompt_ids.push_back((i * 7 + 1) % kVocab);
  request.hash_root = CacheRoot("w", "n", "", "");
  request.sampling.n = n;
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  request.beams = BeamSearch{};
  return request;
}

TEST(BeamsInTheEngineTest, OneBeamIsGreedy) {
  for (const bool ignore_eos : {false, true}) {
    Engine engine;
    Request request = BeamRequest(1, 40, 100);
    request.sampling.ignore_eos = ignore_eos;
    request.sampling.temperature = 0.7f;
    const auto beam = engine.Add(request);
    request.id = "greedy";
    request.beams.reset();
    request.sampling.temperature = 0;
    const auto greedy = engine.Add(request);
    engine.RunToEnd();
    EXPECT_EQ(beam->choices[0].tokens, greedy->choices[0].tokens);
    EXPECT_EQ(beam->choices[0].finish, greedy->choices[0].finish);
    EXPECT_EQ(engine.core->stats().forks, 0);
    EXPECT_EQ(engine.core->stats().copy_on_writes, 0);
  }
}

TEST(BeamsInTheEngineTest, BeamsShareBlocksUntilTheyWrite) {
  Engine engine;
  engine.Add(BeamRequest(4, 40));
  engine.core->Step();
  EXPECT_EQ(engine.core->stats().blocks_held, 3);
  EXPECT_EQ(engine.core->stats().forks, 3);
  engine.core->Step();
  // Each but the one that writes last has a tail of its own; what was left behind is free.
  EXPECT_EQ(engine.core->stats().copy_on_writes, 3);
  EXPECT_LE(engine.core->stats().blocks_held, 2 + 4);
  engine.RunToEnd();
  EXPECT_EQ(engine.core->stats().computed_prompt_tokens, 40);
  EXPECT_EQ(engine.core->stats().generated_tokens, 4 * 8);
}

// The oracle sees a copy that is not made.
TEST(BeamsInTheEngineTest, AMissingCopyIsSeen) {
  const Request request = BeamRequest(3, 40, 12);
  for (const bool faulty : {false, true}) {
    Engine engine;
    engine.runner_.skip_copies = faulty;
    const auto sink = engine.Add(request);
    engine.RunToEnd();
    std::vector<NaiveHypothesis> expected = NaiveAnswer(request);
    EXPECT_EQ(sink->choices[0].tokens != expected[0].tokens ||
                  sink->choices[1].tokens != expected[1].tokens,
              faulty);
  }
}

// Ten beams of five blocks each in a pool of six: they take turns, and give the same answer.
TEST(BeamsInTheEngineTest, BeamsThatDoNotFitTogetherTakeTurns) {
  const Request request = BeamRequest(10, 60, 20);
  for (const bool cached : {true, false}) {
    Engine engine({.num_blocks = 6}, {.enable_prefix_caching = cached});
    const auto sink = engine.Add(request);
    ASSERT_NO_FATAL_FAILURE(engine.RunToEnd());
    ExpectAnswer(request, *sink, NaiveAnswer(request));
    EXPECT_GT(engine.core->stats().preemptions, 20);
  }
}

TEST(BeamsInTheEngineTest, NothingIsSentBeforeTheEnd) {
  Engine engine;
  Request request = BeamRequest(3);
  request.prompt_logprobs = 0;
  const auto sink = engine.Add(request);
  while (engine.core->stats().generated_tokens == 0) {
    engine.core->Step();
    if (engine.core->idle()) break;
    for (const auto& [index, choice] : sink->choices) EXPECT_TRUE(choice.tokens.empty());
  }
  EXPECT_TRUE(sink->Finished(3));
  EXPECT_EQ(sink->prompt.size(), 39u);
}

TEST(BeamsInTheEngineTest, ACancelledRankLeavesTheOthersAsTheyAre) {
  const Request request = BeamRequest(3);
  for (const int steps : {0, 1, 4}) {
    Engine engine;
    const auto sink = engine.Add(request);
    for (int i = 0; i < steps; ++i) engine.core->Step();
    engine.core->Cancel(request.id, 1);
    engine.core->Cancel(request.id, 1);
    engine.RunToEnd();
    const auto expected = NaiveAnswer(request);
    ASSERT_TRUE(sink->Finished(3));
    EXPECT_EQ(sink->choices[0].tokens, expected[0].tokens);
    EXPECT_EQ(sink->choices[1].finish, FinishReason::kCancelled);
    EXPECT_TRUE(sink->choices[1].tokens.empty());
    EXPECT_EQ(sink->choices[2].tokens, expected[2].tokens);
  }
}

TEST(BeamsInTheEngineTest, CancellingAllRanksFreesEverythingAtOnce) {
  for (const bool one_by_one : {false, true}) {
    Engine engine;
    const Request request = BeamRequest(3);
    const auto sink = engine.Add(request);
    for (int i = 0; i < 3; ++i) engine.core->Step();
    if (one_by_one) {
      for (int32_t choice = 0; choice < 3; ++choice) engine.core->Cancel(request.id, choice);
    } else {
      engine.core->Cancel(request.id, std::nullopt);
    }
    EXPECT_TRUE(sink->Finished(3));
    EXPECT_TRUE(engine.core->idle());
    EXPECT_EQ(engine.core->stats().blocks_held, 0);
    EXPECT_EQ(engine.core->stats().running + engine.core->stats().waiting, 0);
    EXPECT_TRUE(engine.core->CheckIntegrity().ok());
  }
}

TEST(BeamsInTheEngineTest, AnErrorOfOneBeamIsTheRequests) {
  for (const bool pass : {true, false}) {
    Engine engine;
    const auto sink = engine.Add(BeamRequest(3));
    Request other = BeamRequest(1);
    other.id = "other";
    other.beams.reset();
    for (int i = 0; i < 3; ++i) engine.core->Step();
    if (pass) {
      engine.runner_.on_run = [](const Batch&) { return absl::InternalError("gone"); };
    } else {
      engine.runner_.on_logits = [](const Batch&, absl::Span<float> logits) { logits[3] = NAN; };
    }
    engine.core->Step();
    engine.runner_.on_run = nullptr;
    engine.runner_.on_logits = nullptr;
    const auto healthy = engine.Add(other);
    engine.RunToEnd();
    ASSERT_TRUE(sink->Finished(3));
    for (const auto& [index, choice] : sink->choices) {
      EXPECT_EQ(choice.finish, FinishReason::kError);
    }
    EXPECT_EQ(healthy->choices[0].finish, FinishReason::kLength);
  }
}

TEST(BeamsInTheEngineTest, WhatLeavesNothingToChooseIsAnError) {
  Engine engine;
  Request request = BeamRequest(2);
  request.sampling.allowed_token_ids = {3};
  request.sampling.bad_words = {{3}};
  const auto sink = engine.Add(request);
  engine.RunToEnd();
  EXPECT_EQ(sink->choices[0].finish, FinishReason::kError);
  EXPECT_NE(sink->choices[0].error.message().find("no token"), std::string::npos);
}

// One output alone exists.
TEST(BeamsInTheEngineTest, RanksWithoutAnOutputAreEmpty) {
  Engine engine;
  Request request = BeamRequest(3, 20, 4);
  request.sampling.allowed_token_ids = {3};
  const auto sink = engine.Add(request);
  engine.RunToEnd();
  ASSERT_TRUE(sink->Finished(3));
  EXPECT_EQ(sink->choices[0].tokens, std::vector<TokenId>(4, 3));
  EXPECT_EQ(sink->choices[0].finish, FinishReason::kLength);
  for (int32_t rank : {1, 2}) {
    EXPECT_TRUE(sink->choices[rank].tokens.empty());
    EXPECT_EQ(sink->choices[rank].finish, FinishReason::kStop);
  }
}

TEST(BeamsInTheEngineTest, RefusesWhatCannotBeSearched) {
  Engine engine({}, {.max_num_seqs = 4});
  const auto refusal = [&](const Request& request) {
    return std::string(
        engine.core->Add(std::make_shared<Request>(request), std::make_shared<RecordingSink>())
            .message());
  };
  EXPECT_TRUE(refusal(BeamRequest(5)).starts_with("n: use_beam_search"));
  EXPECT_TRUE(refusal(BeamRequest(0)).starts_with("n: "));
  Request request = BeamRequest(2);
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    request.beams->length_penalty = bad;
    EXPECT_TRUE(refusal(request).starts_with("length_penalty: "));
  }
  request = BeamRequest(1, 40, 0);
  request.pooling = Pooling::kMean;
  EXPECT_TRUE(refusal(request).starts_with("use_beam_search: "));
  EXPECT_TRUE(engine.core->idle());
}

}  // namespace
}  // namespace kvasir::engine
