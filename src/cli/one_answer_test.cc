// One request, one answer, on a real model: whatever happens to a request inside the engine, its
// tokens, the bits of its raw logits and the bytes of the KV blocks that it publishes are those of
// the same request run alone.
//
// KVASIR_LONG_TESTS takes 40 requests of up to 4,000 prompt tokens and 256 output tokens.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <tuple>

#include "api/generate/output_constraint.h"
#include "base/check.h"
#include "cli/testing/whole_model.h"
#include "compile/compiler.h"
#include "core/block_hash.h"
#include "engine/admission.h"
#include "engine/core.h"
#include "engine/testing/recording_sink.h"
#include "grammar/compiler.h"
#include "grammar/cursor.h"
#include "model/checkpoint.h"
#include "ops/cpu/dispatch.h"
#include "runtime/plan_runner.h"
#include "text/tokenizer.h"

namespace kvasir::cli {
namespace {

using engine::EngineOptions;
using engine::RecordingSink;
using runtime::PlanRunner;

constexpr char kSchema[] = R"({"type":"object","properties":{
    "temperature_in_degrees_celsius":{"type":"integer","minimum":-60,"maximum":60},
    "description_of_the_weather":{"enum":["sunny","cloudy","rainy","snowy"]}},
    "required":["temperature_in_degrees_celsius","description_of_the_weather"],
    "additionalProperties":false})";
constexpr int32_t kSharedTokens = 40;  // prefix of the requests that hit each other's blocks

// Stands between engine and model. With `vary` it is the planted fault: a kernel whose result
// depends on the batch, by the last bit of one logit.
class ForwardingRunner final : public runtime::Runner {
 public:
  ForwardingRunner(PlanRunner& inner, bool vary) : inner_(inner), vary_(vary) {}

  int32_t vocab_size() const override { return inner_.vocab_size(); }
  int32_t hidden_size() const override { return inner_.hidden_size(); }
  int32_t block_size() const override { return inner_.block_size(); }
  int32_t num_blocks() const override { return inner_.num_blocks(); }
  int32_t max_batch_tokens() const override { return inner_.max_batch_tokens(); }
  ThreadPool& pool() override { return inner_.pool(); }

  Status Run(const Batch& batch, const BatchOutput& output) override {
    largest_batch_ = std::max(largest_batch_, batch.sequences.size());
    for (const BatchSequence& sequence : batch.sequences) {
      largest_chunk_ = std::max(largest_chunk_, sequence.tokens.size());
    }
    KVASIR_RETURN_IF_ERROR(inner_.Run(batch, output));
    if (vary_ && batch.sequences.size() > 1 && !output.logits.empty()) {
      output.logits[0] = std::nextafter(output.logits[0], 1e9f);
    }
    return absl::OkStatus();
  }

  size_t largest_batch() const { return largest_batch_; }
  size_t largest_chunk() const { return largest_chunk_; }

 private:
  PlanRunner& inner_;
  const bool vary_;
  size_t largest_batch_ = 0;
  size_t largest_chunk_ = 0;
};

// Everything that must not depend on what else the engine does.
struct Answers {
  std::map<std::pair<std::string, int32_t>, std::vector<TokenId>> tokens;  // request, choice
  std::map<std::tuple<std::string, int32_t, int32_t>, uint64_t> logits;    // and position
  std::map<Hash128, uint64_t> blocks;  // bytes of each published block
  int32_t contradictions = 0;          // two values for one key within a run

  template <typename Map>
  void Put(Map& map, const typename Map::key_type& key, uint64_t hash) {
    const auto [it, added] = map.try_emplace(key, hash);
    if (!added && it->second != hash) ++contradictions;
  }

  void Add(const Answers& other) {
    tokens.insert(other.tokens.begin(), other.tokens.end());
    logits.insert(other.logits.begin(), other.logits.end());
    for (const auto& [key, hash] : other.blocks) Put(blocks, key, hash);
    contradictions += other.contradictions;
  }
};

// What of `got` is not as in `expected`.
struct Difference {
  int64_t tokens = 0, logits = 0, blocks = 0;

  bool none() const { return tokens + logits + blocks == 0; }
};

// What `got` has and `expected` has not, or not so.
template <typename Map>
int64_t CountDifferent(const Map& expected, const Map& got) {
  int64_t different = 0;
  for (const auto& [key, value] : got) {
    const auto it = expected.find(key);
    different += it == expected.end() || it->second != value;
  }
  return different;
}

// What `expected` has and `got` has not. Tokens that a constraint forces have no row of logits
// where they are not computed one by one.
template <typename Map>
int64_t CountMissing(const Map& expected, const Map& got,
                     const std::set<std::string>& constrained) {
  int64_t missing = 0;
  for (const auto& [key, value] : expected) {
    missing += !got.contains(key) && !constrained.contains(std::get<0>(key));
  }
  return missing;
}

Difference Compare(const Answers& expected, const Answers& got,
                   const std::set<std::string>& constrained = {}) {
  return {.tokens = CountDifferent(expected.tokens, got.tokens) +
                    CountMissing(expected.tokens, got.tokens, {}),
          .logits = CountDifferent(expected.logits, got.logits) +
                    CountMissing(expected.logits, got.logits, constrained),
          .blocks = CountDifferent(expected.blocks, got.blocks) + got.contradictions};
}

struct Conditions {
  std::string name;
  EngineOptions options;
  int threads = 2;
  int rounds = 1;  // 2: once more on a warm cache
  // The tokens of the largest chunk; 0: whatever the budget of time makes. The longest prompts
  // come first then, so that there are steps without decodes, which would limit a chunk.
  int32_t chunk = 0;
  bool vary = false;
};

class OneAnswerTest : public testing::Test {
 protected:
  void SetUp() override {
    checkpoint_ = LoadDefaultModel();
    ASSERT_TRUE(IsSkipped() || checkpoint_ != nullptr);
    if (checkpoint_ == nullptr) return;
    tokenizer_ = *text::Tokenizer::FromGguf(*checkpoint_->text.gguf_vocab);
    grammars_ = *grammar::MakeCompiler(*tokenizer_, checkpoint_->config.vocab,
                                       checkpoint_->config.eos_ids, {});
    MakeRequests();
    MakeConstrainedRequests();
  }

  static int32_t MaxTokens() { return LongTests() ? 256 : 12; }

  std::shared_ptr<Request> NewRequest(std::string id, std::vector<TokenId> prompt) {
    auto request = std::make_shared<Request>();
    request->id = std::move(id);
    request->prompt_ids = std::move(prompt);
    request->hash_root = CacheRoot("weights", "numerics", "", "");
    request->unit_hashes = HashUnits(request->hash_root, request->prompt_ids);
    request->sampling.max_tokens = MaxTokens();
    requests_.push_back(request);
    return request;
  }

  void MakeRequests() {
    // Around the tiles of rows, the blocks, the query tiles and the super-tiles of attention.
    std::vector<int32_t> lengths = {1, 2, 15, 16, 17, 31, 63, 65, 100, 129, 255, 257};
    if (LongTests()) {
      for (int32_t n :
           {33,   64,   128,  256,  511,  512,  513,  640,  767,  769,  1023, 1024, 1025, 1100,
            1200, 1279, 1500, 1537, 1800, 2000, 2047, 2049, 2500, 3000, 3333, 3900, 4000}) {
        lengths.push_back(n);
      }
    } else {
      lengths.push_back(1025);
    }
    std::mt19937 random(5);
    const auto draw = [&] { return static_cast<TokenId>(20 + random() % 40000); };
    std::vector<TokenId> shared(kSharedTokens);
    for (TokenId& id : shared) id = draw();
    for (size_t i = 0; i < lengths.size(); ++i) {
      std::vector<TokenId> prompt;
      for (int32_t k = 0; k < lengths[i]; ++k) {
        prompt.push_back(i % 3 == 0 && k < kSharedTokens ? shared[k] : draw());
      }
      const auto request = NewRequest(fmt::format("{}-of-{}", i, lengths[i]), std::move(prompt));
      request->sampling.temperature = i % 2 ? 1.0f : 0.0f;
      request->sampling.seed = 1000 + i;
      request->sampling.n = i % 5 == 3 ? 4 : 1;
      if (i % 5 == 1) {
        request->sampling.n = 3;
        request->beams = BeamSearch{};
      }
      request->sampling.ignore_eos = true;
    }
  }

  std::vector<TokenId> Encode(std::string_view text) const {
    return *tokenizer_->Encode(text, /*parse_special=*/false);
  }

  // A schema with long names, a tool call and a regular expression; n, beams and temperature among
  // them. And prompts that repeat themselves, for drafts.
  void MakeConstrainedRequests() {
    const Constraint schema{Constraint::Kind::kJsonSchema, kSchema};
    const Constraint regex{Constraint::Kind::kRegex, "[a-z]+( [a-z]+){200,}"};
    api::OutputRules call{.format = {text::ToolFormat::kHermes}};
    call.tools.tools.push_back({.name = "get_weather", .parameters = api::Json::parse(kSchema)});
    call.tools.choice = api::ToolChoice::kRequired;
    const std::optional<Constraint> tool = api::OutputConstraint(
        call, [](std::string_view) -> std::optional<TokenId> { return std::nullopt; });
    const std::vector<TokenId> prompt = Encode("The weather in Oslo, as JSON: ");
    const auto add = [&](const char* id, const Constraint& constraint, int32_t n) {
      const auto request = NewRequest(id, prompt);
      request->constraint = constraint;
      request->sampling.n = n;
      request->sampling.seed = 77;
      request->sampling.max_tokens = LongTests() ? 256 : 32;
      constrained_.insert(id);
      return request;
    };
    add("schema", schema, 3);
    add("tool", *tool, 1)->sampling.temperature = 0;
    add("regex", regex, 2);
    add("schema-beams", schema, 2)->beams = BeamSearch{};
    std::vector<TokenId> repeated;
    for (int i = 0; i < 8; ++i) {
      for (const TokenId id : Encode("one two three four five six seven, ")) repeated.push_back(id);
    }
    NewRequest("repeated", repeated)->sampling.temperature = 0;
    // What followed before is not what follows now.
    const auto counted = NewRequest("counted", Encode("1 2 3 4 5, 2 3 4 5 6, 3 4 5 6 7, 4 5 6"));
    counted->sampling.temperature = 0;
    counted->sampling.max_tokens = 2 * MaxTokens();
  }

  std::unique_ptr<grammar::Cursor> CursorOf(const Request& request) const {
    if (!request.constraint) return nullptr;
    auto compiled = grammars_->Compile(*request.constraint);
    KVASIR_CHECK(compiled.ok(), "the constraint compiles");
    return *grammar::Cursor::Create(*compiled, checkpoint_->config.vocab,
                                    checkpoint_->config.eos_ids);
  }

  PlanRunner& Runner(int threads) {
    std::unique_ptr<PlanRunner>& runner = runners_[threads];
    if (runner != nullptr) return *runner;
    auto pool = std::make_unique<ThreadPool>(threads);
    StatusOr<plan::Plan> plan = compile::Compile(checkpoint_,
                                                 {.kernels = *ops::SelectKernels("auto"),
                                                  .kv_type = kv_type_,
                                                  .max_model_len = LongTests() ? 4352 : 1088,
                                                  .max_batch_tokens = LongTests() ? 2048 : 1024},
                                                 *pool);
    KVASIR_CHECK(plan.ok(), "the model compiles");
    auto made = PlanRunner::Create(*std::move(plan), LongTests() ? 6000 : 500, std::move(pool));
    KVASIR_CHECK(made.ok(), "the runner fits into memory");
    runner = *std::move(made);
    return *runner;
  }

  // Hashes the bytes of each block as it is published.
  class BlockRecorder final : public kv::KvEventListener {
   public:
    BlockRecorder(PlanRunner& runner, Answers& answers) : runner_(runner), answers_(answers) {}
    void OnStored(const kv::BlockStored& event) override {
      const absl::Span<const uint8_t> bytes = runner_.BlockBytes(event.block);
      answers_.Put(answers_.blocks, event.hash, XXH3_64bits(bytes.data(), bytes.size()));
    }
    void OnRemoved(const kv::BlockRemoved&) override {}

   private:
    PlanRunner& runner_;
    Answers& answers_;
  };

  // Runs `requests` at once in a new engine, `rounds` times, and returns what the last round gave,
  // with the blocks of all.
  Answers Run(absl::Span<const std::shared_ptr<Request>> requests, const Conditions& conditions,
              EngineStats* total) {
    PlanRunner& model = Runner(conditions.threads);
    ForwardingRunner runner(model, conditions.vary);
    Answers answers;
    BlockRecorder recorder(model, answers);
    EngineOptions options = conditions.options;
    options.kv_listener = &recorder;
    options.test.on_logits = [&](const std::string& id, int32_t choice, int32_t position,
                                 absl::Span<const float> row) {
      answers.Put(answers.logits, {id, choice, position},
                  XXH3_64bits(row.data(), row.size() * sizeof(float)));
    };
    const ModelInfo info{.vocab_size = model.vocab_size(),
                         .max_model_len = model.plan().max_model_len,
                         .block_size = model.block_size(),
                         .eos_ids = checkpoint_->config.eos_ids};
    const SteadyClock clock;
    if (conditions.chunk > 0) {
      options.max_num_batched_tokens = conditions.chunk;
      options.prefill_step_target = std::chrono::hours(1);
    }
    engine::Core core(runner, *engine::FitModel(info, runner), options, clock);
    for (int round = 0; round < conditions.rounds; ++round) {
      answers.tokens.clear();
      std::vector<std::shared_ptr<RecordingSink>> sinks(requests.size());
      for (size_t k = 0; k < requests.size(); ++k) {
        const size_t i = conditions.chunk > 0 ? requests.size() - 1 - k : k;
        sinks[i] = std::make_shared<RecordingSink>();
        const Status added = core.Add(requests[i], sinks[i], CursorOf(*requests[i]));
        EXPECT_TRUE(added.ok()) << added;
      }
      while (core.Step()) {
      }
      for (size_t i = 0; i < sinks.size(); ++i) {
        EXPECT_TRUE(sinks[i]->Finished(requests[i]->sampling.n)) << requests[i]->id;
        for (const auto& [index, choice] : sinks[i]->choices) {
          const bool may_end = !requests[i]->sampling.ignore_eos;
          EXPECT_TRUE(choice.finish == FinishReason::kLength ||
                      (may_end && choice.finish == FinishReason::kStop))
              << choice.error;
          answers.tokens[{requests[i]->id, index}] = choice.tokens;
        }
      }
    }
    EXPECT_TRUE(core.CheckIntegrity().ok()) << core.CheckIntegrity();
    EXPECT_EQ(core.stats().blocks_held, 0);
    if (requests.size() > 1) {
      EXPECT_GT(runner.largest_batch(), 1u);
    }
    if (conditions.chunk > 0) {
      EXPECT_EQ(runner.largest_chunk(), static_cast<size_t>(conditions.chunk));
    }
    *total = core.stats();
    return answers;
  }

  // Each request in an engine of its own, on one thread.
  Answers RunAlone() {
    Answers all;
    for (const auto& request : requests_) {
      EngineStats stats;
      Conditions alone{
          .options = {.jump_forward = false, .prefill_step_target = std::chrono::hours(1)},
          .threads = 1};
      all.Add(Run({&request, 1}, alone, &stats));
      EXPECT_EQ(stats.cached_prompt_tokens + stats.preemptions, 0);
    }
    EXPECT_EQ(all.contradictions, 0);
    return all;
  }

  // Those that the choices make; beams make more.
  int64_t ForksOfChoices() const {
    int64_t forks = 0;
    for (const auto& request : requests_) forks += request->beams ? 0 : request->sampling.n - 1;
    return forks;
  }

  ops::KvType kv_type_ = ops::KvType::kBf16;
  std::shared_ptr<const model::Checkpoint> checkpoint_;
  std::vector<std::shared_ptr<Request>> requests_;
  std::set<std::string> constrained_;  // ids of those with a constraint
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::unique_ptr<grammar::Compiler> grammars_;
  std::map<int, std::unique_ptr<PlanRunner>> runners_;  // by threads
};

TEST_F(OneAnswerTest, IsTheSameAloneAndInAnyCompany) {
  const Answers alone = RunAlone();
  EngineOptions uncached;
  uncached.enable_prefix_caching = false;
  EngineOptions preempting;
  preempting.test.preempt_every_n_steps = 3;
  EngineOptions drafting;
  drafting.max_drafts = 6;
  drafting.test.always_draft = true;
  EngineOptions late = drafting;
  late.jump_forward = false;
  late.test.late_guide_every_n = 3;
  const std::vector<Conditions> all = {
      {.name = "one batch, cold then warm", .rounds = 2},
      {.name = "one thread, chunks of 256", .threads = 1, .chunk = 256},
      {.name = "uncached, chunks of 100", .options = uncached, .chunk = 100},
      {.name = "chunks of 37", .chunk = 37},
      {.name = "preempting", .options = preempting},
      {.name = "drafting", .options = drafting},
      {.name = "drafting, late guides, no jumps", .options = late, .threads = 1},
  };
  EngineStats sum;
  for (const Conditions& conditions : all) {
    EngineStats stats;
    const Difference difference = Compare(alone, Run(requests_, conditions, &stats), constrained_);
    fmt::print(
        "{}: {} steps, {} prompt tokens cached, {} computed, {} chunks, {} preemptions, {} forks, "
        "{} copies on write, {} tokens forced, {} of {} drafts kept; different: {} answers, {} "
        "rows "
        "of logits, {} blocks\n",
        conditions.name, stats.steps, stats.cached_prompt_tokens, stats.computed_prompt_tokens,
        stats.prefill_chunks, stats.preemptions, stats.forks, stats.copy_on_writes,
        stats.forced_tokens, stats.accepted_drafts, stats.drafted_tokens, difference.tokens,
        difference.logits, difference.blocks);
    EXPECT_TRUE(difference.none()) << conditions.name;
    if (conditions.options.enable_prefix_caching) {
      EXPECT_GT(stats.cached_prompt_tokens, conditions.rounds > 1 ? 1000 : 0);
    }
    if (conditions.chunk > 0) {
      EXPECT_GT(stats.prefill_chunks, 3);
    }
    if (conditions.options.test.preempt_every_n_steps > 0) {
      EXPECT_GT(stats.preemptions, 5);
    }
    EXPECT_EQ(stats.forced_tokens > 10, conditions.options.jump_forward);
    if (conditions.options.max_drafts > 0) {
      EXPECT_GT(stats.accepted_drafts, 3);
      EXPECT_GT(stats.drafted_tokens, stats.accepted_drafts + 3);
    }
    if (conditions.options.test.late_guide_every_n > 0) {
      EXPECT_GT(stats.late_guides, 3);
    }
    EXPECT_GT(stats.forks, conditions.rounds * ForksOfChoices());
    EXPECT_GT(stats.copy_on_writes, 0);
  }
  fmt::print("{} answers, {} rows of logits and {} blocks compared under {} conditions\n",
             alone.tokens.size(), alone.logits.size(), alone.blocks.size(), all.size());
}

class QuantizedKvTest : public OneAnswerTest, public testing::WithParamInterface<ops::KvType> {};

// The rounding of K and V is a function of the token's own row: what holds of BF16 holds of it.
TEST_P(QuantizedKvTest, IsTheSameAloneAndInAnyCompany) {
  kv_type_ = GetParam();
  if (!LongTests()) requests_.erase(requests_.begin(), requests_.begin() + 6);
  const Answers alone = RunAlone();
  EngineOptions drafting;
  drafting.max_drafts = 6;
  drafting.test.always_draft = true;
  drafting.test.preempt_every_n_steps = 5;
  const std::vector<Conditions> all = {
      {.name = "one batch, cold then warm", .rounds = 2},
      {.name = "one thread, chunks of 37", .threads = 1, .chunk = 37},
      {.name = "drafting and preempting", .options = drafting},
  };
  for (const Conditions& conditions : all) {
    EngineStats stats;
    const Difference difference = Compare(alone, Run(requests_, conditions, &stats), constrained_);
    EXPECT_TRUE(difference.none())
        << conditions.name << ": " << difference.tokens << " answers, " << difference.logits
        << " rows of logits and " << difference.blocks << " blocks differ";
    EXPECT_GT(stats.copy_on_writes, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, QuantizedKvTest,
                         testing::Values(ops::KvType::kInt8, ops::KvType::kFp8),
                         [](const auto& info) { return ops::Info(info.param).name; });

// The comparison sees a fault in the last bit of one logit.
TEST_F(OneAnswerTest, ABatchVariantKernelIsSeen) {
  requests_.resize(4);
  const Answers alone = RunAlone();
  EngineStats stats;
  EXPECT_TRUE(Compare(alone, Run(requests_, {.name = "sound"}, &stats)).none());
  const Difference faulty = Compare(alone, Run(requests_, {.vary = true}, &stats));
  EXPECT_GT(faulty.logits, 0);
  EXPECT_FALSE(faulty.none());
}

}  // namespace
}  // namespace kvasir::cli
