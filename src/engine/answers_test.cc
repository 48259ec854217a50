// One request, one answer: whatever happens to a request inside the engine, its tokens, its raw
// logits and the KV blocks that it publishes are those of the same request run alone.
#include <absl/container/flat_hash_map.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <tuple>

#include "core/block_hash.h"
#include "engine/admission.h"
#include "engine/core.h"
#include "engine/testing/fake_grammar.h"
#include "engine/testing/fake_runner.h"
#include "engine/testing/recording_sink.h"

namespace kvasir::engine {
namespace {

using Row = std::tuple<std::string, int32_t, int32_t>;  // request, choice, position

uint64_t HashRow(absl::Span<const float> row) {
  uint64_t hash = 14695981039346656037ull;
  for (float value : row) hash = (hash ^ std::bit_cast<uint32_t>(value)) * 1099511628211ull;
  return hash;
}

std::shared_ptr<const FakeGrammar> GrammarOf(const Request& request) {
  return std::make_shared<FakeGrammar>(FakeGrammarOptions{.seed = request.sampling.seed});
}

// An engine whose every row of logits and every published block is recorded.
class Recorded final : public kv::KvEventListener {
 public:
  // With `drafter`, drafts come from a model that agrees with the runner three times out of four.
  Recorded(FakeRunnerOptions runner, EngineOptions options,
           std::optional<FakeRunnerOptions> drafter = std::nullopt)
      : runner_(runner) {
    if (drafter) {
      drafter_.emplace(*drafter).on_logits = [this](const Batch&, absl::Span<float> logits) {
        if (++drafted_ % 4 == 0) std::reverse(logits.begin(), logits.end());
      };
      options.draft_runner = &*drafter_;
    }
    runner_.on_run = [this](const Batch&) {
      clock_.Advance(std::chrono::milliseconds(5));
      return absl::OkStatus();
    };
    options.kv_listener = this;
    options.test.on_logits = [this](const std::string& id, int32_t choice, int32_t position,
                                    absl::Span<const float> logits) {
      const uint64_t hash = HashRow(logits);
      const auto it = rows.try_emplace({id, choice, position}, hash).first;
      EXPECT_EQ(it->second, hash) << "a position has one row";
    };
    const ModelInfo model{.vocab_size = runner.vocab_size,
                          .max_model_len = 1024,
                          .block_size = runner.block_size,
                          .eos_ids = {0}};
    core.emplace(runner_, *FitModel(model, runner_), options, clock_);
  }

  void OnStored(const kv::BlockStored& event) override {
    const auto content = runner_.BlockContent(event.block);
    const auto it = blocks.try_emplace(event.hash, content).first;
    EXPECT_EQ(it->second, content);
  }
  void OnRemoved(const kv::BlockRemoved&) override {}

  std::shared_ptr<RecordingSink> Add(const Request& request) {
    auto sink = std::make_shared<RecordingSink>();
    std::unique_ptr<grammar::Cursor> cursor;
    if (request.constraint) {
      cursor = *grammar::Cursor::Create(GrammarOf(request), 64, core->model().eos_ids);
    }
    const Status added = core->Add(std::make_shared<Request>(request), sink, std::move(cursor));
    EXPECT_TRUE(added.ok()) << added;
    return sink;
  }

  void ExpectClean() {
    EXPECT_TRUE(core->idle());
    EXPECT_TRUE(core->CheckIntegrity().ok()) << core->CheckIntegrity();
    EXPECT_EQ(core->stats().blocks_held, 0);
  }

  std::map<Row, uint64_t> rows;
  absl::flat_hash_map<Hash128, std::vector<uint64_t>> blocks;

 private:
  ManualClock clock_;
  std::optional<FakeRunner> drafter_;
  int64_t drafted_ = 0;

 public:
  FakeRunner runner_;
  std::optional<Core> core;
};

class Generator {
 public:
  explicit Generator(uint32_t seed) : random_(seed) {
    for (auto& prefix : prefixes_) prefix = Tokens(20 + Pick(100));
  }

  int32_t Pick(int32_t below) { return static_cast<int32_t>(random_() % below); }

  Request Next() {
    Request request;
    request.id = absl::StrCat("r", next_++);
    request.hash_root = CacheRoot("w", "n", "", Pick(8) == 0 ? "salt" : "");
    if (Pick(4) != 0) request.prompt_ids = prefixes_[Pick(3)];
    if (Pick(4) == 0) Repeat(request.prompt_ids);
    if (Pick(3) == 0) request.prompt_ids.resize(1 + Pick(16) + request.prompt_ids.size() / 2, 7);
    const std::vector<TokenId> own = Tokens(1 + Pick(60));
    request.prompt_ids.insert(request.prompt_ids.end(), own.begin(), own.end());
    request.unit_hashes = HashUnits(request.hash_root, request.prompt_ids);
    request.priority = Pick(4) == 0 ? Pick(5) - 2 : 0;
    request.sampling = Sampling();
    if (Pick(3) == 0) request.constraint = Constraint{};
    if (Pick(6) == 0) request.prompt_logprobs = Pick(3);
    if (Pick(6) == 0) {
      request.beams = BeamSearch{.length_penalty = 0.5f * Pick(4), .early_stopping = Pick(2) == 0};
    }
    if (Pick(8) == 0) AskForEmbedding(request);
    return request;
  }

 private:
  // Few distinct tokens, so that prompt lookup finds much.
  static void Repeat(std::vector<TokenId>& ids) {
    for (TokenId& id : ids) id %= 3;
  }

  void AskForEmbedding(Request& request) {
    request.pooling = Pick(2) ? Pooling::kMean : Pooling::kLast;
    request.prompt_logprobs = -1;
    request.constraint.reset();
    request.beams.reset();
    request.sampling = {.max_tokens = 0};
  }

  std::vector<TokenId> Tokens(int32_t count) {
    std::vector<TokenId> ids(count);
    for (TokenId& id : ids) id = Pick(64);
    return ids;
  }

  SamplingParams Sampling() {
    SamplingParams params;
    params.temperature = Pick(2) ? 1.0f : 0.0f;
    if (Pick(3) == 0) params.top_p = 0.8f;
    if (Pick(3) == 0) params.top_k = 10;
    if (Pick(4) == 0) params.frequency_penalty = 1.0f;
    if (Pick(4) == 0) params.repetition_penalty = 1.5f;
    if (Pick(4) == 0) params.logit_bias = {{5, 3.0f}};
    if (Pick(4) == 0) params.logprobs = 2;
    if (Pick(3) == 0) params.n = 2 + Pick(3);
    params.max_tokens = 1 + Pick(50);
    if (Pick(3) == 0) params.min_tokens = Pick(params.max_tokens);
    if (Pick(3) == 0) params.stop_token_ids = {1, 2};
    params.ignore_eos = Pick(2);
    params.seed = random_();
    return params;
  }

  std::mt19937 random_;
  std::vector<TokenId> prefixes_[3];
  int next_ = 0;
};

struct Conditions {
  std::string name;
  FakeRunnerOptions runner;
  EngineOptions options;
  std::optional<FakeRunnerOptions> drafter = std::nullopt;
};

class AnswersTest : public testing::TestWithParam<int32_t> {
 protected:
  // What each request gives alone, in an engine without cache, chunks or shortage.
  void RunAlone(const std::vector<Request>& requests, int32_t block_size) {
    for (const Request& request : requests) {
      // Caching publishes blocks, which are needed to compare; a fresh engine has nothing to hit.
      Recorded engine({.block_size = block_size, .num_blocks = 128},
                      {.jump_forward = false, .prefill_step_target = std::chrono::hours(1)});
      alone_[request.id] = engine.Add(request);
      while (engine.core->Step()) {
      }
      rows_.insert(engine.rows.begin(), engine.rows.end());
      blocks_.insert(engine.blocks.begin(), engine.blocks.end());
      if (request.prompt_logprobs >= 0) continue;  // computed in chunks, whatever the budget
      EXPECT_EQ(engine.core->stats().preemptions + engine.core->stats().prefill_chunks, 0);
    }
  }

  // All together, arriving a few at a time.
  void RunTogether(const std::vector<Request>& all, const Conditions& conditions) {
    SCOPED_TRACE(conditions.name);
    Recorded engine(conditions.runner, conditions.options, conditions.drafter);
    const std::vector<Request> requests = Admissible(all, conditions.options);
    std::mt19937 random(1);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const Request& request : requests) {
      sinks.push_back(engine.Add(request));
      for (uint32_t i = random() % 4; i > 0; --i) engine.core->Step();
      ASSERT_TRUE(engine.core->CheckIntegrity().ok()) << engine.core->CheckIntegrity();
    }
    int64_t steps = 0;
    while (engine.core->Step()) ASSERT_LT(++steps, 100000);
    engine.ExpectClean();
    ExpectSameAnswers(requests, sinks);
    ExpectSameBits(engine, requests);
    Count(engine.core->stats());
  }

  // Without the searches that are wider than the slots.
  static std::vector<Request> Admissible(std::vector<Request> requests,
                                         const EngineOptions& options) {
    std::erase_if(requests, [&options](const Request& request) {
      return request.beams && request.sampling.n > options.max_num_seqs;
    });
    return requests;
  }

  void ExpectSameAnswers(const std::vector<Request>& requests,
                         const std::vector<std::shared_ptr<RecordingSink>>& sinks) {
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(sinks[i]->Finished(requests[i].sampling.n));
      EXPECT_EQ(sinks[i]->prompt, alone_[requests[i].id]->prompt);
      EXPECT_EQ(sinks[i]->embedding, alone_[requests[i].id]->embedding);
      ExpectPromptAnswered(requests[i], *sinks[i]);
      for (const auto& [index, choice] : sinks[i]->choices) {
        const RecordingSink::Choice& expected = alone_[requests[i].id]->choices[index];
        EXPECT_EQ(choice.tokens, expected.tokens) << requests[i].id << " choice " << index;
        EXPECT_EQ(choice.finish, expected.finish);
        for (size_t t = 0; t < choice.outs.size(); ++t) {
          EXPECT_EQ(choice.outs[t].logprob, expected.outs[t].logprob);
          EXPECT_EQ(choice.outs[t].top_logprobs, expected.outs[t].top_logprobs);
        }
        if (!requests[i].constraint) continue;
        std::vector<TokenId> text = choice.tokens;
        if (!text.empty() && text.back() == 0) text.pop_back();
        EXPECT_TRUE(GrammarOf(requests[i])->Accepts(text));
      }
    }
  }

  static void ExpectPromptAnswered(const Request& request, const RecordingSink& sink) {
    EXPECT_EQ(sink.embedding.empty(), request.pooling == Pooling::kNone);
    if (request.prompt_logprobs < 0) return;
    ASSERT_EQ(sink.prompt.size() + 1, request.prompt_ids.size());
    for (size_t i = 0; i < sink.prompt.size(); ++i) {
      EXPECT_EQ(sink.prompt[i].id, request.prompt_ids[i + 1]);
    }
  }

  // A jump leaves out the rows of the tokens that it does not draw.
  void ExpectSameBits(const Recorded& engine, const std::vector<Request>& requests) {
    for (const auto& [row, hash] : engine.rows) {
      const auto it = rows_.find(row);
      ASSERT_NE(it, rows_.end());
      EXPECT_EQ(hash, it->second);
    }
    std::set<std::string> whole;  // requests whose every row is drawn from
    for (const Request& request : requests) {
      if (!request.constraint || request.beams) whole.insert(request.id);
    }
    for (const auto& [row, hash] : rows_) {
      EXPECT_TRUE(!whole.contains(std::get<0>(row)) || engine.rows.contains(row));
    }
    for (const auto& [hash, content] : engine.blocks) {
      const auto it = blocks_.find(hash);
      ASSERT_NE(it, blocks_.end());
      EXPECT_EQ(content, it->second);
    }
  }

  void Count(const EngineStats& stats) {
    total_.cached_prompt_tokens += stats.cached_prompt_tokens;
    total_.preemptions += stats.preemptions;
    total_.forks += stats.forks;
    total_.copy_on_writes += stats.copy_on_writes;
    total_.prefill_chunks += stats.prefill_chunks;
    total_.forced_tokens += stats.forced_tokens;
    total_.late_guides += stats.late_guides;
    total_.drafted_tokens += stats.drafted_tokens;
    total_.accepted_drafts += stats.accepted_drafts;
  }

  std::map<std::string, std::shared_ptr<RecordingSink>> alone_;
  std::map<Row, uint64_t> rows_;
  absl::flat_hash_map<Hash128, std::vector<uint64_t>> blocks_;
  EngineStats total_;
};

std::vector<Conditions> AllConditions(int32_t block_size) {
  const FakeRunnerOptions ample{.block_size = block_size, .num_blocks = 4096 / block_size};
  FakeRunnerOptions tiny = ample, two_threads = ample;
  tiny.num_blocks = 20 * 16 / block_size;
  two_threads.threads = 2;
  EngineOptions uncached;
  uncached.enable_prefix_caching = false;
  EngineOptions preempting;
  preempting.test.preempt_every_n_steps = 1;
  EngineOptions preempting_uncached = uncached;
  preempting_uncached.test.preempt_every_n_steps = 3;
  EngineOptions drafts;
  drafts.max_drafts = 5;
  drafts.test.always_draft = true;
  EngineOptions drafts_preempting = drafts;
  drafts_preempting.test.preempt_every_n_steps = 2;
  drafts_preempting.test.late_guide_every_n = 3;
  EngineOptions drafts_in_chunks = drafts;
  drafts_in_chunks.max_num_batched_tokens = 7;
  EngineOptions late;
  late.test.late_guide_every_n = 3;
  EngineOptions late_preempting = preempting;
  late_preempting.test.late_guide_every_n = 2;
  return {
      {"drafts", ample, drafts},
      {"drafts, late guides, preempting in a tiny pool", tiny, drafts_preempting},
      {"drafts in chunks of 7", ample, drafts_in_chunks},
      {"draft model", ample, drafts, ample},
      {"tiny draft model, late guides, preempting in a tiny pool", tiny, drafts_preempting, tiny},
      {"late guides", ample, late},
      {"late guides, preempting in a tiny pool", tiny, late_preempting},
      {"no jumps", ample, {.jump_forward = false}},
      {"plain", ample, {}},
      {"two threads", two_threads, {}},
      {"uncached", ample, uncached},
      {"tiny pool", tiny, {}},
      {"tiny pool, uncached", tiny, uncached},
      {"chunks of 16", ample, {.max_num_batched_tokens = 16}},
      {"chunks of 7", ample, {.max_num_batched_tokens = 7}},
      {"chunks of 40 in a tiny pool", tiny, {.max_num_batched_tokens = 40}},
      {"one at a time", ample, {.max_num_seqs = 1}},
      {"three slots, tiny pool", tiny, {.max_num_seqs = 3}},
      {"preempting", ample, preempting},
      {"preempting, uncached", ample, preempting_uncached},
      {"preempting in a tiny pool", tiny, preempting},
  };
}

TEST_P(AnswersTest, AreThoseOfTheRequestAlone) {
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    Generator generator(seed);
    std::vector<Request> requests;
    for (int i = 0; i < 40; ++i) requests.push_back(generator.Next());
    alone_.clear(), rows_.clear(), blocks_.clear();
    RunAlone(requests, GetParam());
    for (const Conditions& conditions : AllConditions(GetParam()))
      RunTogether(requests, conditions);
  }
  EXPECT_GT(total_.cached_prompt_tokens, 0);
  EXPECT_GT(total_.preemptions, 100);
  EXPECT_GT(total_.forks, 100);
  EXPECT_GT(total_.copy_on_writes, 100);
  EXPECT_GT(total_.prefill_chunks, 100);
  EXPECT_GT(total_.forced_tokens, 100);
  EXPECT_GT(total_.late_guides, 100);
  EXPECT_GT(total_.drafted_tokens, 1000);
  EXPECT_GT(total_.accepted_drafts, 100);
}

// A model that drafts for itself is always right: each pass then gives all drafts and one more.
TEST(DraftModelTest, ThatAgreesSavesPasses) {
  const auto run = [](const EngineOptions& options, float temperature,
                      std::optional<FakeRunnerOptions> drafter) {
    FakeRunner runner({}), other(drafter.value_or(FakeRunnerOptions{}));
    EngineOptions with = options;
    if (drafter) with.draft_runner = &other;
    ManualClock clock;
    const ModelInfo model{.vocab_size = 64, .max_model_len = 512, .block_size = 16, .eos_ids = {0}};
    Core core(runner, *FitModel(model, runner), with, clock);
    Request request{.id = "r", .prompt_ids = std::vector<TokenId>(200, 3)};
    request.sampling = {
        .temperature = temperature, .seed = 9, .n = 2, .max_tokens = 60, .ignore_eos = true};
    const auto sink = std::make_shared<RecordingSink>();
    EXPECT_TRUE(core.Add(std::make_shared<Request>(request), sink).ok());
    while (core.Step()) EXPECT_TRUE(core.CheckIntegrity().ok()) << core.CheckIntegrity();
    return std::tuple(sink->choices[0].tokens, sink->choices[1].tokens, core.stats());
  };
  EngineOptions drafts;
  drafts.max_drafts = 4;
  drafts.test.always_draft = true;
  for (const float temperature : {0.0f, 1.0f}) {
    const auto [plain_0, plain_1, plain] = run({}, temperature, std::nullopt);
    const auto [got_0, got_1, stats] = run(drafts, temperature, FakeRunnerOptions{});
    EXPECT_EQ(got_0, plain_0);
    EXPECT_EQ(got_1, plain_1);
    EXPECT_EQ(stats.accepted_drafts, stats.drafted_tokens);
    EXPECT_GT(stats.accepted_drafts, 60);
    EXPECT_LT(2 * stats.steps, plain.steps);
    // One whose blocks do not even hold the prompt drafts nothing.
    const auto [small_0, small_1, small] = run(drafts, temperature, {{.num_blocks = 8}});
    EXPECT_EQ(small_0, plain_0);
    EXPECT_EQ(small.drafted_tokens, 0);
  }
}

TEST(DraftModelTest, ThatFailsDraftsNothing) {
  FakeRunner runner({}), drafter({});
  drafter.on_run = [](const Batch&) { return absl::InternalError("planted"); };
  ManualClock clock;
  EngineOptions options;
  options.max_drafts = 4;
  options.draft_runner = &drafter;
  const ModelInfo model{.vocab_size = 64, .max_model_len = 512, .block_size = 16, .eos_ids = {0}};
  Core core(runner, *FitModel(model, runner), options, clock);
  Request request{.id = "r", .prompt_ids = {1, 2, 3}};
  request.sampling = {.max_tokens = 20, .ignore_eos = true};
  const auto sink = std::make_shared<RecordingSink>();
  EXPECT_TRUE(core.Add(std::make_shared<Request>(request), sink).ok());
  while (core.Step()) {
  }
  EXPECT_EQ(sink->choices[0].tokens.size(), 20u);
  EXPECT_EQ(core.stats().drafted_tokens, 0);
  EXPECT_TRUE(core.CheckIntegrity().ok()) << core.CheckIntegrity();
}

TEST(DraftModelTest, HasTheModelsVocabulary) {
  FakeRunner drafter({.vocab_size = 65});
  const ModelInfo model{.vocab_size = 64};
  EXPECT_TRUE(absl::IsInvalidArgument(
      CheckDraftRunner(model, {.max_drafts = 4, .draft_runner = &drafter})));
  EXPECT_TRUE(CheckDraftRunner(model, {.max_drafts = 4}).ok());
}

INSTANTIATE_TEST_SUITE_P(BlockSizes, AnswersTest, testing::Values(16, 32));

// With four tokens most drafts come true. A guide that outlives its sequence's preemption may know
// of fewer drafts than the next pass could try.
TEST(DraftsUnderConstraintsTest, SurviveStallsAndPreemptions) {
  constexpr int32_t kFew = 4;
  EngineOptions harsh{.max_num_batched_tokens = 4, .enable_prefix_caching = false};
  harsh.max_drafts = 4;
  harsh.test.always_draft = true;
  harsh.test.late_guide_every_n = 2;
  harsh.test.preempt_every_n_steps = 1;
  const auto answers = [](const std::vector<Request>& requests, const EngineOptions& options) {
    FakeRunner runner({.vocab_size = kFew});
    ManualClock clock;
    const ModelInfo model{
        .vocab_size = kFew, .max_model_len = 512, .block_size = 16, .eos_ids = {0}};
    Core core(runner, *FitModel(model, runner), options, clock);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const Request& request : requests) {
      const auto grammar = std::make_shared<FakeGrammar>(
          FakeGrammarOptions{.vocab_size = kFew, .seed = request.sampling.seed});
      auto cursor = *grammar::Cursor::Create(grammar, kFew, model.eos_ids);
      sinks.push_back(std::make_shared<RecordingSink>());
      EXPECT_TRUE(
          core.Add(std::make_shared<Request>(request), sinks.back(), std::move(cursor)).ok());
    }
    while (core.Step()) {
    }
    std::vector<std::vector<TokenId>> tokens;
    for (const auto& sink : sinks) tokens.push_back(sink->choices[0].tokens);
    return tokens;
  };
  for (uint64_t seed = 0; seed < 50; ++seed) {
    std::vector<Request> requests(3);
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].id = absl::StrCat("r", i);
      requests[i].prompt_ids.assign(12 + (seed + i) % 9, 1);
      requests[i].constraint = Constraint{};
      requests[i].sampling.max_tokens = 30;
      requests[i].sampling.seed = 3 * seed + i;
    }
    EXPECT_EQ(answers(requests, harsh), answers(requests, {.jump_forward = false})) << seed;
  }
}

// The oracle sees faults: a copy that is not made gives other tokens.
TEST(AnswersOracleTest, AMissingCopyIsSeen) {
  const auto tokens = [](bool copies) {
    Recorded engine({}, {});
    Request request;
    request.id = "r";
    request.prompt_ids.assign(20, 3);
    request.sampling.n = 2;
    request.sampling.max_tokens = 10;
    request.sampling.ignore_eos = true;
    engine.runner_.skip_copies = !copies;
    const auto sink = engine.Add(request);
    while (engine.core->Step()) {
    }
    return std::pair(sink->choices[0].tokens, sink->choices[1].tokens);
  };
  EXPECT_EQ(tokens(true), tokens(true));
  EXPECT_NE(tokens(true), tokens(false));
}

TEST(CancellationTest, TenThousandRequestsLeakNothing) {
  Recorded engine({.vocab_size = 64, .num_blocks = 20}, {.max_num_seqs = 12});
  Generator generator(9);
  std::vector<std::pair<Request, std::shared_ptr<RecordingSink>>> open;
  int64_t cancelled = 0;
  for (int i = 0; i < 10000; ++i) {
    Request request = generator.Next();
    request.sampling.max_tokens = std::min(request.sampling.max_tokens, 30);
    request.sampling.min_tokens = 0;
    open.emplace_back(request, engine.Add(request));
    for (int s = generator.Pick(4); s > 0; --s) engine.core->Step();
    if (generator.Pick(2)) {
      const Request& victim = open[generator.Pick(static_cast<int32_t>(open.size()))].first;
      const bool all = victim.sampling.n == 1 || generator.Pick(2);
      engine.core->Cancel(victim.id,
                          all ? std::nullopt : std::optional(generator.Pick(victim.sampling.n)));
      ++cancelled;
    }
    std::erase_if(open,
                  [](const auto& entry) { return entry.second->Finished(entry.first.sampling.n); });
    if (open.size() > 60) engine.core->Cancel(open.front().first.id, std::nullopt);
    EXPECT_EQ(i % 64 ? absl::OkStatus() : engine.core->CheckIntegrity(), absl::OkStatus());
    engine.rows.clear();
    if (i % 1000 == 0) engine.blocks.clear();
  }
  while (engine.core->Step()) {
  }
  engine.ExpectClean();
  for (const auto& [request, sink] : open) EXPECT_TRUE(sink->Finished(request.sampling.n));
  EXPECT_GT(cancelled, 4000);
  EXPECT_GT(engine.core->stats().preemptions, 100);
}

}  // namespace
}  // namespace kvasir::engine
