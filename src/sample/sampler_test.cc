#include "sample/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "sample/philox.h"
#include "sample/weights.h"

namespace kvasir::sample {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(std::mt19937& random, int32_t vocab, float spread, bool ties) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(vocab);
  for (float& logit : logits) {
    logit = normal(random);
    if (ties) logit = std::round(logit * 2) / 2;
  }
  return logits;
}

uint64_t Weight(const WeightedRow& row, size_t id) {
  return row.Weights(row.Scaled(id / kLanes * kLanes))[id % kLanes];
}

// The plain model of truncation and choice: sort everything, then walk.
TokenId Model(const std::vector<float>& logits, const SamplingParams& params, uint64_t noise) {
  const WeightedRow row{
      logits, *std::max_element(logits.begin(), logits.end()), params.temperature,
      static_cast<uint64_t>(std::max(1.0, static_cast<double>(params.min_p) * kOne))};
  std::vector<TokenId> order;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (Weight(row, id) > 0) order.push_back(static_cast<TokenId>(id));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
  if (params.top_k > 0 && order.size() > static_cast<size_t>(params.top_k)) {
    order.resize(params.top_k);
  }
  uint64_t total = 0;
  for (TokenId id : order) total += Weight(row, id);
  if (params.top_p < 1) {
    const auto target =
        static_cast<uint64_t>(static_cast<double>(params.top_p) * static_cast<double>(total));
    uint64_t sum = 0;
    size_t kept = 0;
    do sum += Weight(row, order[kept++]);
    while (sum < target);
    order.resize(kept);
    total = sum;
  }
  std::sort(order.begin(), order.end());
  uint64_t left = static_cast<uint64_t>((static_cast<unsigned __int128>(noise) * total) >> 64);
  for (TokenId id : order) {
    if (left < Weight(row, id)) return id;
    left -= Weight(row, id);
  }
  return order.back();
}

TEST(WeightsTest, AreTheExponentialInFixedPoint) {
  std::vector<float> logits(4001);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = -0.01f * static_cast<float>(i);
  const WeightedRow row{logits, 0};
  for (size_t i = 0; i < logits.size(); ++i) {
    const double exact = std::exp(static_cast<double>(logits[i])) * kOne;
    EXPECT_NEAR(static_cast<double>(Weight(row, i)), exact, exact * 4e-7 + 1);
  }
  EXPECT_EQ(Weight(row, 0), kOne);
  EXPECT_EQ(SumWeights({absl::MakeConstSpan(logits).first(17), 0}, 16, 16), Weight(row, 16));
}

TEST(WeightsTest, BestIsTheLowestIdAmongEquals) {
  EXPECT_EQ(FindBest(std::vector<float>{1, 3, 2, 3})->id, 1);
  std::vector<float> logits(100, -1.0f);
  logits[40] = logits[99] = 2;
  EXPECT_EQ(FindBest(logits)->id, 40);
  EXPECT_FALSE(FindBest(std::vector<float>{}));
  EXPECT_FALSE(FindBest(std::vector<float>(40, -kInfinity)));
  for (size_t i : {0, 17, 99}) {
    for (float bad : {NAN, kInfinity}) {
      std::vector<float> row = logits;
      row[i] = bad;
      EXPECT_FALSE(FindBest(row));
      EXPECT_FALSE(AllFinite(row));
    }
  }
  EXPECT_TRUE(AllFinite(logits));
}

TEST(SamplerTest, EqualsTheSortedModel) {
  std::mt19937 random(1);
  Sampler sampler;
  const auto pick = [&](auto... values) {
    const std::vector<float> all = {static_cast<float>(values)...};
    return all[random() % all.size()];
  };
  for (int i = 0; i < 3000; ++i) {
    const int32_t vocab = 1 + random() % (i % 10 == 0 ? 3000 : 200);
    const auto logits = RandomLogits(random, vocab, pick(0, 0.01, 1, 4, 20), i % 3 == 0);
    SamplingParams params;
    params.temperature = pick(0.01, 0.7, 1, 1.5, 100);
    params.top_k = static_cast<int32_t>(pick(0, 0, 1, 2, 40, 5000));
    params.top_p = pick(1, 1, 0.95, 0.5, 1e-6, 0.9999999);
    params.min_p = pick(0, 0, 0.05, 0.5, 1);
    params.seed = random();
    const Position position{.choice = i % 3, .index = i};
    const auto out = sampler.Sample(logits, params, position);
    ASSERT_TRUE(out.ok()) << out.status();
    ASSERT_EQ(out->id, Model(logits, params, Noise(params.seed, i % 3, i))) << "case " << i;
  }
}

TEST(SamplerTest, TopKOfOneIsGreedy) {
  std::mt19937 random(2);
  Sampler sampler;
  for (int i = 0; i < 100; ++i) {
    const auto logits = RandomLogits(random, 500, 3, i % 2);
    SamplingParams greedy, one;
    greedy.temperature = 0;
    one.top_k = 1;
    one.seed = i;
    EXPECT_EQ(sampler.Sample(logits, greedy, {})->id, sampler.Sample(logits, one, {})->id);
  }
}

// Pearson's test with fixed seeds: the draws follow the softmax, truncated and renormalized.
void ExpectDistribution(const SamplingParams& base, const std::vector<float>& logits,
                        std::vector<double> expected) {
  constexpr int kDraws = 20000;
  Sampler sampler;
  std::vector<int> counts(logits.size());
  SamplingParams params = base;
  params.seed = 7;
  for (int i = 0; i < kDraws; ++i) ++counts[sampler.Sample(logits, params, {.index = i})->id];
  double chi = 0, sum = 0;
  int cells = 0;
  for (double e : expected) sum += e;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double e = expected[i] / sum * kDraws;
    if (e == 0) {
      EXPECT_EQ(counts[i], 0) << i;
    } else {
      chi += (counts[i] - e) * (counts[i] - e) / e;
      ++cells;
    }
  }
  const double freedom = cells - 1;
  EXPECT_LT(chi, freedom + 4 * std::sqrt(2 * freedom));
}

TEST(SamplerTest, DrawsFollowTheDistribution) {
  std::vector<float> logits;
  std::vector<double> plain, hot, top4;
  for (int i = 0; i < 20; ++i) {
    logits.push_back(0.2f * static_cast<float>(i % 10));
    plain.push_back(std::exp(logits.back()));
    hot.push_back(std::exp(logits.back() / 2));
    top4.push_back(i % 10 >= 8 ? std::exp(logits.back()) : 0);
  }
  ExpectDistribution({}, logits, plain);
  ExpectDistribution({.temperature = 2}, logits, hot);
  ExpectDistribution({.top_k = 4}, logits, top4);
  ExpectDistribution({.top_p = 0.30f}, logits, top4);
  ExpectDistribution({.min_p = 0.8f}, logits, top4);
}

TEST(SamplerTest, BiasAndPenaltiesAreAppliedInOrder) {
  SamplingParams params;
  params.temperature = 0;
  params.logit_bias = {{0, 2.0f}};
  params.repetition_penalty = 2;
  params.frequency_penalty = 0.5f;
  params.presence_penalty = 0.25f;
  TokenCounts counts;
  counts.AddPrompt({0, 1});
  for (TokenId id : {2, 2, 3}) counts.AddOutput(id);
  std::vector<float> logits = {1, -1, 4, -2, 0.5f};
  ProcessLogits(params, {.counts = &counts}, absl::MakeSpan(logits));
  EXPECT_EQ(logits, (std::vector<float>{1.5f, -2, 2 - 1 - 0.25f, -4 - 0.5f - 0.25f, 0.5f}));
}

TEST(SamplerTest, MinTokensMasksEveryEnd) {
  const std::vector<float> logits = {5, 4, 3, 2};
  const std::vector<TokenId> eos = {0};
  SamplingParams params;
  params.temperature = 0;
  params.min_tokens = 2;
  params.max_tokens = 3;
  params.stop_token_ids = {1};
  Sampler sampler;
  EXPECT_EQ(sampler.Sample(logits, params, {.index = 1, .eos_ids = eos})->id, 2);
  EXPECT_EQ(sampler.Sample(logits, params, {.index = 2, .eos_ids = eos})->id, 0);
  EXPECT_TRUE(IsEnd(params, eos, 0));
  EXPECT_TRUE(IsEnd(params, eos, 1));
  params.ignore_eos = true;
  EXPECT_FALSE(IsEnd(params, eos, 0));
}

TEST(SamplerTest, WhatLeavesNothingToChooseIsAnError) {
  Sampler sampler;
  SamplingParams params;
  params.min_tokens = 1;
  EXPECT_FALSE(sampler.Sample({1.0f, 2.0f}, params, {.eos_ids = {0, 1}}).ok());
  EXPECT_FALSE(sampler.Sample({1.0f, NAN}, SamplingParams(), {}).ok());
  SamplingParams overflow;
  overflow.repetition_penalty = 1e-38f;
  TokenCounts counts;
  counts.AddOutput(1);
  EXPECT_FALSE(sampler.Sample({1.0f, 30.0f}, overflow, {.counts = &counts}).ok());
}

TEST(SamplerTest, LogprobsAreOfTheRawSoftmax) {
  const std::vector<float> logits = {1, 3, 2, 3};
  SamplingParams params;
  params.temperature = 0.5f;
  params.logit_bias = {{0, 100.0f}};
  params.logprobs = 3;
  const auto out = Sampler().Sample(logits, params, {});
  double sum = 0;
  for (float l : logits) sum += std::exp(l);
  EXPECT_EQ(out->id, 0);
  EXPECT_NEAR(out->logprob, 1 - std::log(sum), 1e-6);
  ASSERT_EQ(out->top_logprobs.size(), 3u);
  EXPECT_EQ(out->top_logprobs[0].first, 1);
  EXPECT_EQ(out->top_logprobs[1].first, 3);
  EXPECT_EQ(out->top_logprobs[2].first, 2);
  EXPECT_NEAR(out->top_logprobs[2].second, 2 - std::log(sum), 1e-6);
}

bool Contains(const std::vector<TokenId>& ids, TokenId id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// The `count` best tokens that go on, then the `count` best that end, by sorting everything.
std::vector<TokenId> ModelOffer(const std::vector<float>& processed,
                                const std::vector<TokenId>& ends, size_t count) {
  std::vector<TokenId> order(processed.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](TokenId a, TokenId b) { return processed[a] > processed[b]; });
  std::vector<TokenId> offered;
  for (const bool ending : {false, true}) {
    size_t left = count;
    for (const TokenId id : order) {
      if (Contains(ends, id) != ending || std::isinf(processed[id]) || left == 0) continue;
      offered.push_back(id);
      --left;
    }
  }
  return offered;
}

TEST(SamplerTest, OffersTheBestOfEachKind) {
  std::mt19937 random(4);
  Sampler sampler;
  for (int i = 0; i < 300; ++i) {
    const auto logits = RandomLogits(random, 1 + static_cast<int32_t>(random() % 200), 3, i % 2);
    const auto pick = [&] { return static_cast<TokenId>(random() % logits.size()); };
    SamplingParams params;
    params.n = 1 + static_cast<int32_t>(random() % 8);
    params.logprobs = i % 3 - 1;
    params.temperature = 0.1f;  // has no say
    params.top_k = 1;
    params.logit_bias = {{pick(), 5.0f}};
    params.bad_words = {{pick()}};
    std::vector<TokenId> ends;
    for (uint32_t e = random() % 20; e > 0; --e) ends.push_back(pick());
    const auto offer = sampler.Offer(logits, params, {}, ends);
    ASSERT_TRUE(offer.ok()) << offer.status();

    std::vector<float> processed = logits;
    ProcessLogits(params, {}, absl::MakeSpan(processed));
    double sum = 0;
    for (const float logit : processed) sum += std::exp(static_cast<double>(logit));
    std::vector<TokenId> offered;
    for (const BeamOffer::Candidate& candidate : offer->candidates) {
      offered.push_back(candidate.id);
      EXPECT_NEAR(candidate.logprob, processed[candidate.id] - std::log(sum), 1e-5);
      EXPECT_EQ(candidate.ends, Contains(ends, candidate.id));
      EXPECT_EQ(offer->Report(candidate), *Sampler::Report(logits, params.logprobs, candidate.id));
    }
    EXPECT_EQ(offered, ModelOffer(processed, ends, params.n)) << "case " << i;
  }
}

TEST(SamplerTest, OffersNothingWhereNothingMayCome) {
  Sampler sampler;
  SamplingParams params;
  params.min_tokens = 1;
  const auto offer = sampler.Offer({1.0f, 2.0f}, params, {.eos_ids = {0, 1}}, {0, 1});
  ASSERT_TRUE(offer.ok());
  EXPECT_TRUE(offer->candidates.empty());
  EXPECT_FALSE(sampler.Offer({1.0f, NAN}, params, {}, {}).ok());
}

}  // namespace
}  // namespace kvasir::sample
