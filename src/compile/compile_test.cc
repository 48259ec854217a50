#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "compile/memory_plan.h"
#include "compile/passes.h"
#include "graph/graph.h"

namespace kvasir::compile {
namespace {

using graph::Graph;
using graph::Node;
using graph::Op;
using graph::Operand;
using graph::ValueType;

// One layer as an architecture builds it.
Graph OneLayer() {
  Graph g;
  const Operand x = g.Append({.op = Op::kEmbed}, "x", 64);
  const Operand h = g.Append({.op = Op::kRmsNorm, .inputs = {x}, .weights = {"norm"}}, "h", 64);
  const auto project = [&](const Operand& in, const char* weight, int32_t width) {
    return g.Append({.op = Op::kMatmul, .inputs = {in}, .weights = {weight}, .biases = {""}},
                    weight, width);
  };
  const Operand q = project(h, "wq", 64);
  const Operand k = project(h, "wk", 32);
  const Operand v = project(h, "wv", 32);
  const Operand qr =
      g.Append({.op = Op::kRope, .inputs = {q}, .layer = 0, .head_width = 16}, "qr", 64);
  const Operand kr =
      g.Append({.op = Op::kRope, .inputs = {k}, .layer = 0, .head_width = 16}, "kr", 32);
  const Operand qs =
      g.Append({.op = Op::kScale, .inputs = {qr}, .layer = 0, .scale = 0.25f}, "qs", 64);
  g.nodes.push_back({.op = Op::kKvWrite, .inputs = {kr, v}, .layer = 0});
  const Operand o = g.Append({.op = Op::kAttention, .inputs = {qs}, .layer = 0}, "o", 64);
  const Operand mid = g.Append({.op = Op::kAdd, .inputs = {x, project(o, "wo", 64)}}, "mid", 64);
  const Operand h2 = g.Append({.op = Op::kRmsNorm, .inputs = {mid}, .weights = {"n2"}}, "h2", 64);
  const Operand gate = project(h2, "gate", 128);
  const Operand up = project(h2, "up", 128);
  const Operand silu = g.Append({.op = Op::kActivate, .inputs = {gate}}, "silu", 128);
  const Operand act = g.Append({.op = Op::kMul, .inputs = {silu, up}}, "act", 128);
  const Operand out =
      g.Append({.op = Op::kAdd, .inputs = {mid, project(act, "down", 64)}}, "out", 64);
  g.logits = project(out, "head", 96).value;
  return g;
}

int Count(const Graph& g, Op op) {
  return static_cast<int>(
      std::count_if(g.nodes.begin(), g.nodes.end(), [&](const Node& n) { return n.op == op; }));
}

const Node& Find(const Graph& g, Op op) {
  return *std::find_if(g.nodes.begin(), g.nodes.end(), [&](const Node& n) { return n.op == op; });
}

TEST(PassesTest, RotationScaleAndWriteBecomeOneNode) {
  Graph g = OneLayer();
  FuseRopeKvWrite(g);
  ASSERT_TRUE(Verify(g).ok()) << Print(g);
  EXPECT_EQ(Count(g, Op::kRope) + Count(g, Op::kScale) + Count(g, Op::kKvWrite), 0);
  EXPECT_EQ(Find(g, Op::kRopeKvWrite).scale, 0.25f);
}

TEST(PassesTest, ProductsOfOneInputAreStackedWhereTheyMayBe) {
  Graph g = OneLayer();
  FuseSharedInput(g, [](const std::string& a, const std::string& b) {
    return (a == "wv") == (b == "wv");  // V has another format
  });
  ASSERT_TRUE(Verify(g).ok()) << Print(g);
  EXPECT_THAT(Find(g, Op::kMatmul).weights, testing::ElementsAre("wq", "wk"));
  EXPECT_EQ(Count(g, Op::kMatmul), 6);  // q+k, v, o, gate+up, down, head
  const Node& k_rope = g.nodes[5];
  ASSERT_EQ(k_rope.op, Op::kRope) << Print(g);
  EXPECT_EQ(k_rope.inputs[0].column, 64);
}

TEST(PassesTest, GatedActivationBecomesOneNode) {
  Graph g = OneLayer();
  FuseGate(g);
  ASSERT_TRUE(Verify(g).ok()) << Print(g);
  EXPECT_EQ(Count(g, Op::kActivate) + Count(g, Op::kMul), 0);
  EXPECT_EQ(Count(g, Op::kGated), 1);
}

TEST(PassesTest, ResidualIsAddedInPlace) {
  Graph g = OneLayer();
  FuseResidual(g);
  ASSERT_TRUE(Verify(g).ok()) << Print(g);
  EXPECT_EQ(Count(g, Op::kAdd), 0);
  const MemoryPlan memory = PlanMemory(g, 8, 8);
  for (const Node& node : g.nodes) {
    if (!node.residual) continue;
    EXPECT_EQ(memory.offsets[node.outputs[0]], memory.offsets[node.inputs[1].value]);
  }
}

TEST(PassesTest, AResidualThatIsReadAgainStaysApart) {
  Graph g = OneLayer();
  const Operand x = g.Whole(0);
  const Operand again = g.Append({.op = Op::kAdd, .inputs = {x, x}}, "again", 64);
  g.logits = again.value;
  FuseResidual(g);
  ASSERT_TRUE(Verify(g).ok()) << Print(g);
  EXPECT_GE(Count(g, Op::kAdd), 2) << Print(g);  // of `again`, and of the x that it reads
}

TEST(PassesTest, ActivationsAreQuantizedOnceAndByTheirProducer) {
  Graph g = OneLayer();
  InsertQuantize(g, [](const std::string& weight) -> Activation {
    return weight == "head" ? ValueType::kFloat : ValueType::kQuantized;
  });
  ASSERT_TRUE(Verify(g).ok()) << Print(g);
  EXPECT_EQ(Count(g, Op::kQuantize), 4);  // h, o, h2, act
  FuseGate(g);
  FuseQuantize(g);
  ASSERT_TRUE(Verify(g).ok()) << Print(g);
  EXPECT_EQ(Count(g, Op::kQuantize), 1);  // o: attention writes float
  EXPECT_EQ(g.values[Find(g, Op::kRmsNorm).outputs[0]].type, ValueType::kQuantized);
}

TEST(PassesTest, AnOrderOfColumnsIsMadeByANodeOfItsOwn) {
  Graph g = OneLayer();
  const std::vector<int32_t> order = {1, 0};
  InsertQuantize(g, [&](const std::string& weight) -> Activation {
    const bool ordered = weight == "wq" || weight == "wk" || weight == "down";
    return {ValueType::kQuantized,
            ordered ? absl::Span<const int32_t>(order) : absl::Span<const int32_t>()};
  });
  FuseGate(g);
  FuseQuantize(g);
  ASSERT_TRUE(Verify(g).ok()) << Print(g);
  std::vector<std::string> named;
  for (const Node& node : g.nodes) {
    if (node.op == Op::kQuantize && !node.weights.empty()) named.push_back(node.weights[0]);
  }
  EXPECT_THAT(named, testing::ElementsAre("wq", "down"));  // wk shares that of wq
}

TEST(PassesTest, WhatProductsAttentionAndGatesReadBecomesBf16) {
  Graph g = OneLayer();
  FuseRopeKvWrite(g);
  FuseSharedInput(g, [](const std::string& a, const std::string& b) { return a[0] == b[0]; });
  FuseGate(g);
  FuseResidual(g);
  NarrowToBf16(g);
  InsertQuantize(g, [](const std::string&) { return ValueType::kBf16; });
  FuseQuantize(g);
  ASSERT_TRUE(Verify(g).ok()) << Print(g);
  const auto type = [&](Op op) { return g.values[Find(g, op).outputs[0]].type; };
  EXPECT_EQ(type(Op::kEmbed), ValueType::kFloat);
  EXPECT_EQ(type(Op::kMatmul), ValueType::kFloat) << "what is rotated next";
  for (const Op op : {Op::kRmsNorm, Op::kRopeKvWrite, Op::kAttention, Op::kGated}) {
    EXPECT_EQ(type(op), ValueType::kBf16) << Name(op);
  }
  EXPECT_EQ(g.values[g.logits].type, ValueType::kFloat);
  EXPECT_EQ(Count(g, Op::kQuantize), 1) << Print(g);  // of the stream, for the head
}

TEST(PassesTest, UnreadNodesGoAndEffectsStay) {
  Graph g = OneLayer();
  const size_t before = g.nodes.size();
  const Operand dead = g.Append({.op = Op::kActivate, .inputs = {g.Whole(0)}}, "dead", 64);
  g.Append({.op = Op::kActivate, .inputs = {dead}}, "dead too", 64);
  RemoveDeadNodes(g);
  EXPECT_EQ(g.nodes.size(), before);
  EXPECT_EQ(Count(g, Op::kKvWrite), 1);
}

TEST(VerifyTest, NamesTheNodeAtFault) {
  Graph g = OneLayer();
  g.nodes[1].inputs[0].width = 65;
  EXPECT_THAT(std::string(Verify(g).message()), testing::HasSubstr("graph node 1 (rms_norm)"));
}

TEST(VerifyTest, WhatAProductWasAddedOntoIsNotReadAgain) {
  Graph g = OneLayer();
  FuseResidual(g);
  ASSERT_TRUE(Verify(g).ok());
  const auto fused =
      std::find_if(g.nodes.begin(), g.nodes.end(), [](const Node& n) { return n.residual; });
  const Operand taken = fused->inputs[1];
  Graph again = g;
  again.Append({.op = Op::kScale, .inputs = {taken}}, "again", taken.width);
  EXPECT_THAT(std::string(Verify(again).message()), testing::HasSubstr("is read after"));
  fused->inputs[0] = taken;
  EXPECT_THAT(std::string(Verify(g).message()), testing::HasSubstr("what is multiplied"));
}

TEST(VerifyTest, RowsOfAnotherDispatchAreNotMixed) {
  Graph g;
  const Operand x = g.Append({.op = Op::kEmbed}, "x", 32);
  std::vector<Operand> routed, rows;
  for (const int32_t used : {1, 2}) {
    const graph::Routing routing{.experts = 32, .used = used};
    routed.push_back(
        g.Append({.op = Op::kRoute, .inputs = {x}, .routing = routing}, "r", 2 * used));
    rows.push_back(g.Append({.op = Op::kDispatch, .inputs = {x, routed.back()}, .routing = routing},
                            "d", 32, graph::Rows::kRouted, used));
  }
  const Operand stale =
      g.Append({.op = Op::kScale, .inputs = {rows[0]}}, "s", 32, graph::Rows::kRouted, 1);
  g.logits = g.Append({.op = Op::kCombine, .inputs = {rows[1], routed[1]}}, "y", 32).value;
  ASSERT_TRUE(Verify(g).ok()) << Verify(g);
  g.nodes.back().inputs[0] = stale;
  EXPECT_THAT(std::string(Verify(g).message()), testing::HasSubstr("another dispatch"));
}

// Random graphs: values that are alive together never overlap, and the arena is close to the
// least that any plan needs.
TEST(MemoryPlanTest, LiveValuesAreApart) {
  std::mt19937 random(5);
  for (int round = 0; round < 100; ++round) {
    Graph g;
    g.Append({.op = Op::kEmbed}, "x", 64);
    std::vector<int> last(1, 0);
    const int nodes = 2 + static_cast<int>(random() % 30);
    for (int i = 1; i < nodes; ++i) {
      const Operand in = g.Whole(static_cast<int32_t>(random() % g.values.size()));
      last[in.value] = i;
      g.Append({.op = Op::kActivate, .inputs = {in}}, "v",
               32 * (1 + static_cast<int>(random() % 16)));
      last.push_back(i);
    }
    g.logits = static_cast<int32_t>(g.values.size()) - 1;
    const MemoryPlan plan = PlanMemory(g, 4, 4);
    EXPECT_GE(plan.arena_bytes, plan.peak_live_bytes);
    for (int a = 0; a + 1 < nodes; ++a) {
      for (int b = a + 1; b + 1 < nodes && b <= last[a]; ++b) {
        const int64_t end_a = plan.offsets[a] + g.values[a].width * 16;
        const int64_t end_b = plan.offsets[b] + g.values[b].width * 16;
        EXPECT_TRUE(end_a <= plan.offsets[b] || end_b <= plan.offsets[a]);
      }
    }
  }
}

TEST(MemoryPlanTest, ALayerNeedsNoMoreThanItsPeak) {
  Graph g = OneLayer();
  FuseRopeKvWrite(g);
  FuseSharedInput(g, [](const std::string&, const std::string&) { return true; });
  FuseGate(g);
  FuseResidual(g);
  const MemoryPlan plan = PlanMemory(g, 128, 8);
  EXPECT_LE(plan.arena_bytes, plan.peak_live_bytes * 102 / 100);
}

}  // namespace
}  // namespace kvasir::compile
