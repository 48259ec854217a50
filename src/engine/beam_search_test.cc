#include "engine/beam_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "engine/testing/naive_beams.h"
#include "sample/logprobs.h"
#include "sample/weights.h"

namespace kvasir::engine {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A model that is a table: what follows an output is a made-up function of it.
struct Table {
  int32_t vocab = 4;
  uint32_t seed = 1;
  double masked = 0;  // share of tokens that may not come

  std::vector<float> Row(absl::Span<const TokenId> output) const {
    uint32_t state = seed;
    for (const TokenId id : output) state = state * 747796405u + 2891336453u + id;
    std::mt19937 random(state);
    std::normal_distribution<float> normal(0, 2);
    std::uniform_real_distribution<double> uniform;
    std::vector<float> row(vocab);
    for (float& logit : row) {
      logit = normal(random);
      if (uniform(random) < masked) logit = -std::numeric_limits<float>::infinity();
    }
    return row;
  }

  std::vector<double> Logprobs(absl::Span<const TokenId> output) const {
    const std::vector<float> row = Row(output);
    std::vector<double> logprobs(row.size(), -kInfinity);
    if (!sample::FindBest(row)) return logprobs;
    const sample::LogSoftmax softmax(row);
    for (size_t id = 0; id < row.size(); ++id) logprobs[id] = softmax.Of(row[id]);
    return logprobs;
  }
};

NaiveBeamSearch Naive(const Table& table, const BeamSearch& rules, int32_t width,
                      int32_t max_tokens, std::vector<TokenId> ends) {
  return {.rules = rules,
          .width = static_cast<size_t>(width),
          .max_tokens = static_cast<size_t>(max_tokens),
          .ends = std::move(ends),
          .logprobs = [table](absl::Span<const TokenId> output) { return table.Logprobs(output); }};
}

std::vector<NaiveHypothesis> Plain(const std::vector<Hypothesis>& answer) {
  std::vector<NaiveHypothesis> plain;
  for (const Hypothesis& hypothesis : answer) {
    NaiveHypothesis& p = plain.emplace_back();
    for (const TokenOut& out : hypothesis.tokens) p.tokens.push_back(out.id);
    p.score = hypothesis.score;
    p.stopped = hypothesis.finish == FinishReason::kStop;
  }
  return plain;
}

// Runs Beams on the table through the offers that a sampler would make. The table's row stands for
// the processed one; what is reported is of a raw row that nothing is masked in.
std::vector<Hypothesis> Search(const Table& table, const BeamSearch& rules, int32_t width,
                               int32_t max_tokens, const std::vector<TokenId>& ends) {
  Beams beams(rules, width, max_tokens);
  std::vector<std::vector<TokenId>> live(1);
  while (!live.empty()) {
    std::vector<sample::BeamOffer> offers;
    for (const auto& tokens : live) {
      const std::vector<float> raw(table.vocab, 0.0f);
      offers.push_back(sample::OfferOf(raw, table.Row(tokens), ends, width, -1));
    }
    std::vector<std::vector<TokenId>> next;
    for (const Beams::Step& step : beams.Advance(offers)) {
      next.push_back(live[step.parent]);
      next.back().push_back(step.token);
    }
    live = std::move(next);
  }
  return beams.Answer();
}

TEST(BeamsTest, EqualTheNaiveSearch) {
  std::mt19937 random(1);
  const auto pick = [&](auto... values) {
    const std::vector<float> all = {static_cast<float>(values)...};
    return all[random() % all.size()];
  };
  size_t stopped = 0, cut = 0, fewer = 0;
  for (uint32_t i = 0; i < 4000; ++i) {
    const Table table{
        .vocab = 2 + static_cast<int32_t>(random() % 6), .seed = i, .masked = pick(0, 0, 0.2, 0.7)};
    const BeamSearch rules{.length_penalty = pick(1, 1, 0, 0.5, 2, -1),
                           .early_stopping = random() % 2 == 0};
    const int32_t width = 1 + static_cast<int32_t>(random() % 6);
    const int32_t max_tokens = 1 + static_cast<int32_t>(random() % 8);
    std::vector<TokenId> ends;
    for (uint32_t e = random() % 3; e > 0; --e) ends.push_back(random() % table.vocab);
    const auto expected = Naive(table, rules, width, max_tokens, ends).Run();
    const auto got = Plain(Search(table, rules, width, max_tokens, ends));
    ASSERT_EQ(got, expected) << "case " << i;
    for (const NaiveHypothesis& h : got) ++(h.stopped ? stopped : cut);
    fewer += got.size() < static_cast<size_t>(width);
  }
  EXPECT_GT(stopped, 1000u);
  EXPECT_GT(cut, 1000u);
  EXPECT_GT(fewer, 100u);
}

// Every output that ends, and every one of the most tokens.
void Enumerate(const Table& table, int32_t max_tokens, TokenId end, NaiveHypothesis so_far,
               std::vector<NaiveHypothesis>* all) {
  const std::vector<double> row = table.Logprobs(so_far.tokens);
  for (TokenId id = 0; id < table.vocab; ++id) {
    NaiveHypothesis longer = so_far;
    longer.tokens.push_back(id);
    longer.score += row[id];
    longer.stopped = id == end;
    if (longer.stopped || static_cast<int32_t>(longer.tokens.size()) == max_tokens) {
      all->push_back(longer);
    } else {
      Enumerate(table, max_tokens, end, longer, all);
    }
  }
}

TEST(BeamsTest, WideEnoughTheyFindTheBestOutputsOfAll) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const Table table{.vocab = 3, .seed = seed};
    const int32_t max_tokens = 1 + static_cast<int32_t>(seed % 5);
    for (const float penalty : {0.0f, 1.0f, 1.7f}) {
      std::vector<NaiveHypothesis> all;
      Enumerate(table, max_tokens, 2, {}, &all);
      for (NaiveHypothesis& h : all) {
        h.score /= std::pow(static_cast<double>(h.tokens.size()), static_cast<double>(penalty));
      }
      std::sort(all.begin(), all.end(),
                [](const auto& a, const auto& b) { return a.score > b.score; });
      // No more outputs than this: none is dropped on the way, and the search never stops early.
      const int32_t width = static_cast<int32_t>(all.size());
      EXPECT_EQ(Plain(Search(table, {.length_penalty = penalty}, width, max_tokens, {2})), all);
    }
  }
}

sample::BeamOffer Offer(std::vector<sample::BeamOffer::Candidate> candidates) {
  return {.candidates = std::move(candidates)};
}

TEST(BeamsTest, OrderEqualSumsByBeamAndToken) {
  Beams beams({}, 3, 10);
  const sample::BeamOffer row =
      Offer({{.id = 9, .logprob = -1}, {.id = 4, .logprob = -1}, {.id = 7, .logprob = -0.5}});
  const auto first = beams.Advance({{row}});
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(first[0].token, 7);
  EXPECT_EQ(first[1].token, 4);
  EXPECT_EQ(first[2].token, 9);
  // Beams 1 and 2 have equal sums, and beam 0 comes down to them.
  const auto second = beams.Advance({{Offer({{.id = 5, .logprob = -1.5}}),
                                      Offer({{.id = 3, .logprob = -1}, {.id = 2, .logprob = -1}}),
                                      Offer({{.id = 1, .logprob = -1}})}});
  ASSERT_EQ(second.size(), 3u);
  EXPECT_EQ(second[0].parent, 0);
  EXPECT_EQ(second[1].parent, 1);
  EXPECT_EQ(second[1].token, 2);
  EXPECT_EQ(second[2].parent, 1);
  EXPECT_EQ(second[2].token, 3);
}

TEST(BeamsTest, StopEarlyOrWhenNoLiveBeamCanWin) {
  const sample::BeamOffer row =
      Offer({{.id = 0, .logprob = -1, .ends = true}, {.id = 1, .logprob = -0.1}});
  Beams eager({.early_stopping = true}, 1, 10);
  EXPECT_EQ(eager.Advance({{row}}).size(), 1u);  // the end was second best: it ends nothing
  const sample::BeamOffer ending =
      Offer({{.id = 0, .logprob = -0.1, .ends = true}, {.id = 1, .logprob = -0.2}});
  EXPECT_TRUE(eager.Advance({{ending}}).empty());

  // Width 2: two end with averages -0.1 and -1; the live one is at -0.1 + -0.2 over 2.
  Beams patient({}, 2, 10);
  EXPECT_EQ(patient.Advance({{row}}).size(), 1u);
  EXPECT_EQ(patient.Advance({{ending}}).size(), 1u);
  // Now its average falls to -1.1, below the worst that ended.
  EXPECT_TRUE(patient.Advance({{Offer({{.id = 1, .logprob = -3}})}}).empty());
  const auto answer = patient.Answer();
  ASSERT_EQ(answer.size(), 2u);
  EXPECT_DOUBLE_EQ(answer[0].score, -0.1);
  EXPECT_DOUBLE_EQ(answer[1].score, -1);
}

TEST(BeamsTest, ThePenaltyDecidesBetweenLengths) {
  const auto best_length = [](float penalty) {
    Beams beams({.length_penalty = penalty}, 2, 3);
    beams.Advance({{Offer({{.id = 0, .logprob = -1, .ends = true}, {.id = 1, .logprob = -0.6}})}});
    beams.Advance({{Offer({{.id = 1, .logprob = -0.6}})}});
    beams.Advance({{Offer({{.id = 0, .logprob = -0.3, .ends = true}})}});
    return beams.Answer().front().tokens.size();
  };
  EXPECT_EQ(best_length(0), 1u);
  EXPECT_EQ(best_length(1), 3u);
  EXPECT_EQ(best_length(-1), 1u);
}

TEST(BeamsTest, WhereNothingMayComeThereIsNoAnswer) {
  Beams beams({}, 2, 10);
  EXPECT_EQ(beams.Advance({{Offer({{.id = 1}})}}).size(), 1u);
  EXPECT_TRUE(beams.Advance({{Offer({})}}).empty());
  EXPECT_TRUE(beams.Answer().empty());
}

TEST(BeamsTest, ACertainOutputScoresZeroUnderAnyPenalty) {
  for (const float penalty : {-1e30f, 0.0f, 1e30f}) {
    Beams beams({.length_penalty = penalty}, 1, 2);
    beams.Advance({{Offer({{.id = 1}})}});
    beams.Advance({{Offer({{.id = 2}})}});
    EXPECT_EQ(beams.Answer().front().score, 0);
  }
}

TEST(BeamsTest, TokensCarryWhatTheirRowReports) {
  Beams beams({}, 2, 2);
  const auto offer = [](TokenId id, float raw) {
    return sample::BeamOffer{.candidates = {{.id = id, .logprob = -1, .raw_logprob = raw},
                                            {.id = id + 1, .logprob = -2, .raw_logprob = raw - 1}},
                             .top_logprobs = {{id, raw}}};
  };
  beams.Advance({{offer(10, -0.5f)}});
  beams.Advance({{offer(20, -0.25f), offer(30, -0.75f)}});
  const auto answer = beams.Answer();
  ASSERT_EQ(answer.size(), 2u);
  const std::vector<TokenOut> best = {
      {.id = 10, .logprob = -0.5f, .top_logprobs = {{10, -0.5f}}},
      {.id = 20, .logprob = -0.25f, .top_logprobs = {{20, -0.25f}}}};
  EXPECT_EQ(answer[0].tokens, best);
  EXPECT_EQ(answer[1].tokens[1].id, 21);
  EXPECT_EQ(answer[1].tokens[1].logprob, -1.25f);
}

}  // namespace
}  // namespace kvasir::engine
