// A runner that draws tokens itself changes no answer.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "engine/admission.h"
#include "engine/core.h"
#include "engine/testing/fake_runner.h"
#include "engine/testing/recording_sink.h"

namespace kvasir::engine {
namespace {

// Greedy and sampled, some with what a runner cannot draw: penalties, forbidden ends,
// log-probabilities, several choices of one row.
std::vector<Request> Requests() {
  std::mt19937 random(3);
  const auto one_in = [&](int n) { return random() % n == 0; };
  std::vector<Request> out(60);
  for (size_t i = 0; i < out.size(); ++i) {
    Request& request = out[i];
    request.id = std::to_string(i);
    request.prompt_ids.resize(1 + random() % 40);
    // (Few tokens, so that prompt lookup finds some.)
    for (TokenId& id : request.prompt_ids) id = static_cast<TokenId>(1 + random() % 4);
    SamplingParams& sampling = request.sampling;
    sampling.temperature = one_in(3) ? 0.0f : 0.7f;
    sampling.min_p = one_in(3) ? 0.1f : 0.0f;
    sampling.top_k = one_in(5) ? 7 : 0;
    sampling.top_p = one_in(5) ? 0.8f : 1.0f;
    sampling.presence_penalty = one_in(6) ? 0.5f : 0.0f;
    sampling.min_tokens = one_in(4) ? 6 : 0;
    sampling.logprobs = one_in(6) ? 2 : -1;
    sampling.n = one_in(4) ? 3 : 1;
    sampling.seed = random();
    sampling.max_tokens = 12;
  }
  return out;
}

std::vector<std::vector<TokenId>> Answers(bool draws, int32_t max_drafts, int64_t* drawn) {
  FakeRunner runner({.draws = draws});
  ManualClock clock;
  EngineOptions options{.max_drafts = max_drafts};
  options.test.always_draft = true;
  const ModelInfo model{.vocab_size = 64, .max_model_len = 1024, .block_size = 16, .eos_ids = {0}};
  Core core(runner, *FitModel(model, runner), options, clock);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const Request& request : Requests()) {
    sinks.push_back(std::make_shared<RecordingSink>());
    const Status added = core.Add(std::make_shared<Request>(request), sinks.back());
    EXPECT_TRUE(added.ok()) << added;
  }
  while (core.Step()) {
  }
  EXPECT_TRUE(core.CheckIntegrity().ok());
  *drawn = runner.drawn_tokens();
  std::vector<std::vector<TokenId>> out;
  for (const auto& sink : sinks) {
    for (const auto& [index, choice] : sink->choices) out.push_back(choice.tokens);
  }
  return out;
}

TEST(DrawingTest, AnswersAreThoseOfTheSampler) {
  for (const int32_t drafts : {0, 4}) {
    int64_t none = 0, drawn = 0;
    const auto expected = Answers(false, drafts, &none);
    EXPECT_EQ(Answers(true, drafts, &drawn), expected);
    EXPECT_EQ(none, 0);
    EXPECT_GT(drawn, 100);
  }
}

// The noise is that of the choice that is left.
TEST(DrawingTest, AChoiceWhoseSiblingsWereCancelledKeepsItsAnswer) {
  const auto answer = [](bool draws) {
    FakeRunner runner({.draws = draws});
    ManualClock clock;
    const ModelInfo model{
        .vocab_size = 64, .max_model_len = 1024, .block_size = 16, .eos_ids = {0}};
    Core core(runner, *FitModel(model, runner), {}, clock);
    auto request = std::make_shared<Request>();
    request->id = "a";
    request->prompt_ids = {1, 2, 3};
    request->sampling.n = 3;
    request->sampling.seed = 5;
    auto sink = std::make_shared<RecordingSink>();
    EXPECT_TRUE(core.Add(request, sink).ok());
    core.Cancel("a", 0);
    core.Cancel("a", 1);
    while (core.Step()) {
    }
    EXPECT_EQ(runner.drawn_tokens() > 0, draws);
    return sink->choices.at(2).tokens;
  };
  EXPECT_EQ(answer(true), answer(false));
}

TEST(DrawingTest, ALogitThatIsNoNumberFailsItsRequestAlone) {
  class Broken final : public runtime::Runner {
   public:
    explicit Broken(FakeRunner& inner) : inner_(inner) {}
    int32_t vocab_size() const override { return inner_.vocab_size(); }
    int32_t hidden_size() const override { return inner_.hidden_size(); }
    int32_t block_size() const override { return inner_.block_size(); }
    int32_t num_blocks() const override { return inner_.num_blocks(); }
    int32_t max_batch_tokens() const override { return inner_.max_batch_tokens(); }
    bool draws() const override { return true; }
    ThreadPool& pool() override { return inner_.pool(); }
    Status Run(const Batch& batch, const BatchOutput& output) override {
      KVASIR_RETURN_IF_ERROR(inner_.Run(batch, output));
      if (!output.drawn.empty()) output.drawn.front() = -1;
      return absl::OkStatus();
    }

   private:
    FakeRunner& inner_;
  };
  FakeRunner inner({.draws = true});
  Broken runner(inner);
  ManualClock clock;
  const ModelInfo model{.vocab_size = 64, .max_model_len = 1024, .block_size = 16, .eos_ids = {0}};
  Core core(runner, *FitModel(model, runner), {}, clock);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const char* id : {"a", "b"}) {
    auto request = std::make_shared<Request>();
    request->id = id;
    request->prompt_ids = {1, 2};
    request->sampling.temperature = 0;
    request->sampling.max_tokens = 1;
    sinks.push_back(std::make_shared<RecordingSink>());
    ASSERT_TRUE(core.Add(request, sinks.back()).ok());
  }
  while (core.Step()) {
  }
  EXPECT_EQ(sinks[0]->choices[0].finish, FinishReason::kError);
  EXPECT_EQ(sinks[0]->choices[0].error.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(sinks[1]->choices[0].tokens.size(), 1u);
}

}  // namespace
}  // namespace kvasir::engine
