#include "cluster/wire.h"

#include <gtest/gtest.h>

#include <random>

#include "core/block_hash.h"
#include "core/retry_after.h"

namespace kvasir::cluster {
namespace {

using std::chrono::seconds;

const TimePoint kNow{seconds(1000)};

Request FullRequest() {
  Request out;
  out.id = "a";
  for (TokenId id = 0; id < 40; ++id) out.prompt_ids.push_back(3 * id);
  out.hash_root = CacheRoot("w", "n", "", "salt");
  out.unit_hashes = HashUnits(out.hash_root, out.prompt_ids);
  out.sampling = {.temperature = 0.5f,
                  .top_k = 3,
                  .top_p = 0.9f,
                  .min_p = 0.1f,
                  .presence_penalty = -1.5f,
                  .frequency_penalty = 0.25f,
                  .repetition_penalty = 1.25f,
                  .logit_bias = {{5, -1.0f}, {6, 2.0f}},
                  .allowed_token_ids = {1, 2},
                  .bad_words = {{1, 2, 3}, {4}},
                  .seed = ~uint64_t{0} - 1,
                  .n = 4,
                  .max_tokens = 100,
                  .min_tokens = 2,
                  .stop_token_ids = {9},
                  .ignore_eos = true,
                  .logprobs = 5};
  out.constraint = Constraint{.kind = Constraint::Kind::kRegex, .text = "a+"};
  out.beams = BeamSearch{.length_penalty = 0.5f, .early_stopping = true};
  out.prompt_logprobs = 2;
  out.pooling = Pooling::kLast;
  out.priority = -3;
  out.arrival = kNow - seconds(2);
  out.deadline = kNow + seconds(60);
  return out;
}

TEST(WireTest, ARequestComesThroughWhole) {
  const Request sent = FullRequest();
  const TimePoint there{seconds(77)};  // another machine's clock
  const StatusOr<Request> got = FromWire(ToWire(sent, kNow), there);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->id, sent.id);
  EXPECT_EQ(got->prompt_ids, sent.prompt_ids);
  EXPECT_EQ(got->unit_hashes, sent.unit_hashes);
  EXPECT_EQ(got->hash_root, sent.hash_root);
  EXPECT_EQ(got->sampling, sent.sampling);
  EXPECT_EQ(got->constraint, sent.constraint);
  ASSERT_TRUE(got->beams.has_value());
  EXPECT_EQ(got->beams->length_penalty, 0.5f);
  EXPECT_TRUE(got->beams->early_stopping);
  EXPECT_EQ(got->prompt_logprobs, 2);
  EXPECT_EQ(got->pooling, Pooling::kLast);
  EXPECT_EQ(got->priority, -3);
  EXPECT_EQ(got->arrival, there - seconds(2));
  EXPECT_EQ(got->deadline, there + seconds(60));
}

TEST(WireTest, WhatIsNotThereStaysAway) {
  Request sent;
  sent.id = "b";
  sent.prompt_ids = {1};
  sent.arrival = kNow;
  const StatusOr<Request> got = FromWire(ToWire(sent, kNow), kNow);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_FALSE(got->constraint.has_value());
  EXPECT_FALSE(got->beams.has_value());
  EXPECT_EQ(got->prompt_logprobs, -1);
  EXPECT_EQ(got->deadline, TimePoint::max());
  EXPECT_EQ(got->sampling, SamplingParams{});
}

TEST(WireTest, WrongFieldsAreNamed) {
  const auto refused = [](auto spoil, std::string_view field) {
    wire::Submit submit = ToWire(FullRequest(), kNow);
    spoil(submit);
    const Status status = FromWire(submit, kNow).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << field;
    EXPECT_TRUE(std::string(status.message()).starts_with(field)) << status;
  };
  refused([](wire::Submit& s) { s.clear_id(); }, "id");
  refused([](wire::Submit& s) { s.clear_prompt_ids(); }, "prompt_ids");
  refused([](wire::Submit& s) { s.set_hash_root("short"); }, "hash_root");
  refused([](wire::Submit& s) { s.mutable_unit_hashes()->pop_back(); }, "unit_hashes");
  refused([](wire::Submit& s) { s.mutable_sampling()->add_biases(1); }, "sampling.biases");
  refused([](wire::Submit& s) { s.set_pooling(static_cast<wire::Pooling>(9)); }, "pooling");
  refused(
      [](wire::Submit& s) {
        s.mutable_constraint()->set_kind(static_cast<wire::Constraint::Kind>(9));
      },
      "constraint.kind");
}

TEST(WireTest, AnEventComesThroughWhole) {
  TokenEvent sent{.choice = 2, .finish = FinishReason::kError};
  sent.tokens.push_back({.id = 7, .logprob = -0.5f, .top_logprobs = {{7, -0.5f}, {8, -1.0f}}});
  sent.prompt.push_back({.id = 3, .logprob = -2.0f});
  sent.embedding = {1.5f, -2.5f};
  sent.error = absl::ResourceExhaustedError("full");
  SetRetryAfter(2.5, sent.error);
  sent.cached_tokens = 32;
  const StatusOr<TokenEvent> got = FromWire(ToWire("a", sent));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->choice, 2);
  EXPECT_EQ(got->tokens, sent.tokens);
  EXPECT_EQ(got->prompt, sent.prompt);
  EXPECT_EQ(got->embedding, sent.embedding);
  EXPECT_EQ(got->finish, FinishReason::kError);
  EXPECT_EQ(got->error.code(), sent.error.code());
  EXPECT_EQ(got->error.message(), sent.error.message());
  EXPECT_EQ(RetryAfterSeconds(got->error), 2.5);
  EXPECT_EQ(got->cached_tokens, 32);
}

TEST(WireTest, AnEventThatFailsWithoutAnErrorIsRefused) {
  wire::Event event = ToWire("a", {.finish = FinishReason::kStop});
  event.set_finish(wire::FINISH_ERROR);
  EXPECT_TRUE(absl::IsInvalidArgument(FromWire(event).status()));
  event.set_finish(static_cast<wire::Finish>(77));
  EXPECT_TRUE(absl::IsInvalidArgument(FromWire(event).status()));
}

TEST(WireTest, AnotherMajorVersionIsRefusedByNameAndAnotherMinorOneIsNot) {
  wire::Version version = OwnVersion();
  version.set_minor(version.minor() + 1);
  EXPECT_TRUE(CheckVersion(version, "worker w").ok());
  version.set_major(version.major() + 1);
  const Status status = CheckVersion(version, "worker w");
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(status.message(), "worker w speaks version 2.1, this is version 1.0");
}

// Whatever bytes come, they are read or refused.
TEST(WireTest, RandomBytesDoNoHarm) {
  std::mt19937 random(1);
  const std::string good = ToWire(FullRequest(), kNow).SerializeAsString();
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = good;
    for (int changes = 1 + static_cast<int>(random() % 8); changes > 0; --changes) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    wire::Submit submit;
    if (submit.ParseFromString(bytes)) (void)FromWire(submit, kNow);
  }
}

}  // namespace
}  // namespace kvasir::cluster
