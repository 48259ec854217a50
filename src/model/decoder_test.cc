#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "model/architecture.h"

namespace kvasir::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Shapes only: building a graph looks at no weight.
Checkpoint TinyCheckpoint() {
  Checkpoint out;
  ModelConfig& c = out.config;
  c.architecture = "llama";
  c.layers = 2;
  c.hidden = 64;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.rope.width = 16;
  c.ffn = 96;
  c.vocab = 50;
  c.context_length = 128;
  const auto add = [&](const std::string& name, int64_t rows, int64_t cols) {
    out.tensors[name] = {.dtype = DType::kF32, .rows = rows, .cols = cols};
  };
  add("token_embd.weight", 50, 64);
  add("output_norm.weight", 1, 64);
  for (int layer = 0; layer < c.layers; ++layer) {
    const std::string p = fmt::format("blk.{}.", layer);
    add(p + "attn_norm.weight", 1, 64);
    add(p + "attn_q.weight", 64, 64);
    add(p + "attn_k.weight", 32, 64);
    add(p + "attn_v.weight", 32, 64);
    add(p + "attn_output.weight", 64, 64);
    add(p + "ffn_norm.weight", 1, 64);
    add(p + "ffn_gate.weight", 96, 64);
    add(p + "ffn_up.weight", 96, 64);
    add(p + "ffn_down.weight", 64, 96);
  }
  return out;
}

std::string ErrorOf(const Checkpoint& checkpoint) {
  const StatusOr<graph::Graph> graph = BuildGraph(checkpoint);
  return graph.ok() ? "OK" : std::string(graph.status().message());
}

// The weights of the last matrix product, which makes the logits.
std::string HeadOf(const Checkpoint& checkpoint) {
  const StatusOr<graph::Graph> graph = BuildGraph(checkpoint);
  return graph.ok() ? graph->nodes.back().weights.at(0) : graph.status().ToString();
}

TEST(BuildGraph, BuildsAModelWithATiedOrAnOwnHead) {
  Checkpoint checkpoint = TinyCheckpoint();
  EXPECT_EQ(HeadOf(checkpoint), "token_embd.weight");
  checkpoint.tensors["output.weight"] = {.rows = 50, .cols = 64};
  EXPECT_EQ(HeadOf(checkpoint), "output.weight");
  checkpoint.tensors.erase("output.weight");
  checkpoint.config.own_head = true;
  EXPECT_EQ(ErrorOf(checkpoint), "tensor 'output.weight' is missing");
}

TEST(BuildGraph, NamesEveryMissingTensor) {
  const Checkpoint whole = TinyCheckpoint();
  for (const auto& [name, view] : whole.tensors) {
    Checkpoint checkpoint = TinyCheckpoint();
    checkpoint.tensors.erase(name);
    EXPECT_EQ(ErrorOf(checkpoint), fmt::format("tensor '{}' is missing", name));
  }
}

TEST(BuildGraph, NamesTensorFoundAndExpectedShape) {
  const Checkpoint whole = TinyCheckpoint();
  for (const auto& [name, view] : whole.tensors) {
    Checkpoint checkpoint = TinyCheckpoint();
    checkpoint.tensors[name].rows += 1;
    checkpoint.tensors[name].cols += 2;
    EXPECT_THAT(ErrorOf(checkpoint),
                AllOf(HasSubstr(fmt::format("'{}'", name)),
                      HasSubstr(fmt::format("has shape [{}, {}]", view.rows + 1, view.cols + 2)),
                      HasSubstr(fmt::format("asks for [{}, {}]", view.rows, view.cols))));
  }
  Checkpoint checkpoint = TinyCheckpoint();
  checkpoint.tensors["output.weight"] = {.rows = 49, .cols = 64};
  EXPECT_THAT(ErrorOf(checkpoint),
              AllOf(HasSubstr("'output.weight'"), HasSubstr("[49, 64]"), HasSubstr("[50, 64]")));
}

TEST(BuildGraph, ChecksBiasesWhereThereAreAny) {
  Checkpoint checkpoint = TinyCheckpoint();
  checkpoint.config.architecture = "qwen2";
  checkpoint.tensors["blk.1.attn_k.bias"] = {.rows = 1, .cols = 32};
  EXPECT_EQ(ErrorOf(checkpoint), "OK");
  checkpoint.tensors["blk.1.attn_k.bias"].cols = 64;
  EXPECT_THAT(ErrorOf(checkpoint),
              AllOf(HasSubstr("'blk.1.attn_k.bias'"), HasSubstr("[1, 64]"), HasSubstr("[1, 32]")));
}

// Of the layers that have them, every expert's tensors are asked for.
TEST(BuildGraph, NamesTheExpertThatIsMissing) {
  Checkpoint checkpoint = TinyCheckpoint();
  checkpoint.config.moe = {.ffn = 32, .dense_layers = 1, .routing = {.experts = 3, .used = 2}};
  checkpoint.tensors["blk.1.ffn_gate_inp.weight"] = {.rows = 3, .cols = 64};
  for (int expert = 0; expert < 3; ++expert) {
    for (const char* name : {"ffn_gate", "ffn_up", "ffn_down"}) {
      const bool down = std::string_view(name) == "ffn_down";
      checkpoint.tensors[fmt::format("blk.1.{}.{}.weight", name, expert)] = {
          .rows = down ? 64 : 32, .cols = down ? 32 : 64};
    }
  }
  EXPECT_EQ(ErrorOf(checkpoint), "OK");
  checkpoint.tensors["blk.1.ffn_down.1.weight"].dtype = DType::kQ8_0;
  EXPECT_THAT(ErrorOf(checkpoint),
              AllOf(HasSubstr("'blk.1.ffn_down.1.weight' has type Q8_0"), HasSubstr("type F32")));
  checkpoint.tensors["blk.1.ffn_down.1.weight"].dtype = DType::kF32;
  checkpoint.tensors.erase("blk.1.ffn_up.2.weight");
  EXPECT_EQ(ErrorOf(checkpoint), "tensor 'blk.1.ffn_up.2.weight' is missing");
}

TEST(BuildGraph, RefusesIntegersWithoutScales) {
  Checkpoint checkpoint = TinyCheckpoint();
  checkpoint.tensors["blk.1.attn_k.weight"].dtype = DType::kI8;
  EXPECT_THAT(ErrorOf(checkpoint), AllOf(HasSubstr("'blk.1.attn_k.weight'"), HasSubstr("I8"),
                                         HasSubstr("quantization_config")));
}

// A matrix of several tensors, of which graphs look at the layout only.
std::shared_ptr<const ops::ScaledMatrix> Scaled(int64_t group, std::vector<int32_t> order = {}) {
  auto out = std::make_shared<ops::ScaledMatrix>();
  out->group_columns = group;
  out->order = std::move(order);
  return out;
}

TEST(BuildGraph, RefusesAnEmbeddingWhoseScalesAreElsewhere) {
  Checkpoint checkpoint = TinyCheckpoint();
  TensorView& embedding = checkpoint.tensors["token_embd.weight"];
  embedding.dtype = DType::kInt8;
  embedding.scaled = Scaled(64);
  EXPECT_THAT(ErrorOf(checkpoint), HasSubstr("'token_embd.weight'"));
}

TEST(BuildGraph, ExpertsHaveOneLayoutAndOneOrder) {
  Checkpoint checkpoint = TinyCheckpoint();
  checkpoint.config.moe.ffn = 32;
  checkpoint.config.moe.routing = {.experts = 2, .used = 1};
  for (int layer = 0; layer < 2; ++layer) {
    const std::string p = fmt::format("blk.{}.", layer);
    checkpoint.tensors[p + "ffn_gate_inp.weight"] = {.rows = 2, .cols = 64};
    for (int expert = 0; expert < 2; ++expert) {
      for (const auto& [name, rows, cols] :
           {std::tuple{"ffn_gate", 32, 64}, {"ffn_up", 32, 64}, {"ffn_down", 64, 32}}) {
        TensorView& view = checkpoint.tensors[fmt::format("{}{}.{}.weight", p, name, expert)];
        view = {.dtype = DType::kInt4, .rows = rows, .cols = cols};
        view.scaled = Scaled(32);
      }
    }
  }
  EXPECT_EQ(ErrorOf(checkpoint), "OK");
  TensorView& last = checkpoint.tensors["blk.1.ffn_up.1.weight"];
  last.scaled = Scaled(64);
  EXPECT_THAT(ErrorOf(checkpoint), AllOf(HasSubstr("'blk.1.ffn_up.1.weight'"),
                                         HasSubstr("groups of 64"), HasSubstr("groups of 32")));
  last.scaled = Scaled(32);
  checkpoint.tensors["blk.0.ffn_down.0.weight"].scaled = Scaled(32, {1, 0});
  EXPECT_THAT(ErrorOf(checkpoint),
              AllOf(HasSubstr("'blk.0.ffn_down.0.weight'"), HasSubstr("act-order")));
}

TEST(BuildGraph, RefusesConfigurationsTheKernelsCannotRun) {
  Checkpoint checkpoint = TinyCheckpoint();
  checkpoint.config.kv_heads = 3;
  EXPECT_THAT(ErrorOf(checkpoint), HasSubstr("3 KV heads"));
  checkpoint = TinyCheckpoint();
  checkpoint.config.head_dim = 20;
  EXPECT_THAT(ErrorOf(checkpoint), HasSubstr("head size 20"));
  checkpoint = TinyCheckpoint();
  checkpoint.config.ffn = 100;
  EXPECT_THAT(ErrorOf(checkpoint), HasSubstr("feed-forward size 100"));
  checkpoint = TinyCheckpoint();
  checkpoint.config.eos_ids = {50};
  EXPECT_THAT(ErrorOf(checkpoint), HasSubstr("end token 50"));
  checkpoint = TinyCheckpoint();
  checkpoint.config.rope.width = 18;
  EXPECT_THAT(ErrorOf(checkpoint), HasSubstr("18 rotated columns of a head of 16"));
  checkpoint = TinyCheckpoint();
  checkpoint.config.has_window_rope = true;
  checkpoint.config.window_rope.width = 3;
  EXPECT_THAT(ErrorOf(checkpoint), HasSubstr("3 rotated columns of a head of 16"));
  checkpoint = TinyCheckpoint();
  checkpoint.config.moe.routing = {.experts = 8, .used = 2, .groups = 8, .groups_used = 1};
  EXPECT_THAT(ErrorOf(checkpoint), HasSubstr("2 of 8 experts, 1 of 8 groups"));
  checkpoint.config.moe.routing = {.experts = 4, .used = 5};
  EXPECT_THAT(ErrorOf(checkpoint), HasSubstr("5 of 4 experts"));
}

}  // namespace
}  // namespace kvasir::model
