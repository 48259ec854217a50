#include "compile/key_centers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace kvasir::compile {
namespace {

using graph::Op;

constexpr int32_t kDim = 16, kHeads = 2, kWidth = kDim * kHeads;

// One layer whose product makes q, k and v, with a bias of 1, 2, 3, ... in each.
plan::CompiledModel OneLayer() {
  plan::CompiledModel m;
  m.layers = 1;
  m.heads = m.kv_heads = kHeads;
  m.k_dim = m.v_dim = kDim;
  m.context_length = 8192;
  // The fastest pair turns a radian a position, the slowest one a hundred-millionth.
  m.ropes = {{.theta = 1e9f, .width = kDim, .original_context = 8192}};
  m.vectors.emplace_back(3 * kWidth);
  for (int32_t i = 0; i < 3 * kWidth; ++i) m.vectors[0][i] = static_cast<float>(i % kWidth + 1);
  m.nodes = {{.op = Op::kMatmul, .output = 0, .matrix = 0, .bias = 0},
             {.op = Op::kRopeKvWrite,
              .inputs = {{0, 0, kWidth}, {0, kWidth, kWidth}, {0, 2 * kWidth, kWidth}},
              .output = 1,
              .layer = 0,
              .head_width = kDim},
             {.op = Op::kAttention, .inputs = {{1, 0, kWidth}}, .output = 2, .layer = 0}};
  return m;
}

TEST(KeyCentersTest, AreTheBiasWhereItStandsStillAndNothingWhereItTurns) {
  const auto centers = KeyCenters(OneLayer(), 8192);
  ASSERT_EQ(centers.size(), 1u);
  ASSERT_EQ(centers[0].size(), static_cast<size_t>(kWidth));
  for (int32_t head = 0; head < kHeads; ++head) {
    for (const int32_t column : {0, kDim / 2}) {
      EXPECT_NEAR(centers[0][head * kDim + column], 0, 0.02);
      const int32_t slowest = head * kDim + column + kDim / 2 - 1;
      EXPECT_NEAR(centers[0][slowest], slowest + 1, 0.01);
    }
  }
}

TEST(KeyCentersTest, AreTheSameBeforeRotationAndWriteAreFused) {
  plan::CompiledModel m = OneLayer();
  const auto fused = KeyCenters(m, 8192);
  m.nodes[1] = {.op = Op::kRope, .inputs = {{0, kWidth, kWidth}}, .output = 3, .head_width = kDim};
  m.nodes.insert(
      m.nodes.begin() + 2,
      {.op = Op::kKvWrite, .inputs = {{3, 0, kWidth}, {0, 2 * kWidth, kWidth}}, .layer = 0});
  EXPECT_EQ(KeyCenters(m, 8192), fused);
}

TEST(KeyCentersTest, AreNotTakenWhereAShiftOfTheScoresIsSeen) {
  plan::CompiledModel sinks = OneLayer(), capped = OneLayer(), plain = OneLayer();
  sinks.nodes[2].vector = 0;
  capped.nodes[2].softcap = 50.0f;
  plain.nodes[0].bias = -1;
  for (const plan::CompiledModel* model : {&sinks, &capped, &plain}) {
    EXPECT_TRUE(KeyCenters(*model, 8192)[0].empty());
  }
}

}  // namespace
}  // namespace kvasir::compile
