#include "plan/plan_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>

#include <fmt/format.h>

namespace kvasir::plan {
namespace {

using graph::Op;
using graph::Rows;
using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

constexpr int32_t kHidden = 32, kVocab = 20;

// Embeds, normalises and multiplies by a head, over weights that this object holds.
class SmallModel {
 public:
  SmallModel() : head_(2 * 16 * kHidden), embedding_(kVocab * kHidden) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (float& x : head_) x = normal(random);
    for (float& x : embedding_) x = normal(random);
    CompiledModel& m = model;
    m.architecture = "llama";
    m.name = "small";
    m.fingerprint = "f00d";
    m.activations = "int8";
    m.text.gguf_vocab = GgufVocab{.model = "gpt2", .tokens = {"a", "\u00e9"}, .add_bos = true};
    m.text.chat_template = "{{ messages }}";
    m.eos_ids = {2};
    m.layers = m.heads = m.kv_heads = 1;
    m.k_dim = m.v_dim = 16;
    m.hidden = kHidden;
    m.vocab = kVocab;
    m.context_length = 64;
    m.rms_eps = 1e-5f;
    m.kv_type = ops::KvType::kInt8;
    m.ropes = {{.width = 16, .original_context = 64}};
    m.values = {{"x", Rows::kTokens, graph::ValueType::kFloat, kHidden},
                {"last", Rows::kOutput, graph::ValueType::kFloat, kHidden},
                {"final", Rows::kOutput, graph::ValueType::kFloat, kHidden},
                {"logits", Rows::kOutput, graph::ValueType::kFloat, kVocab}};
    m.nodes = {{.op = Op::kEmbed, .output = 0},
               {.op = Op::kSelectRows, .inputs = {{0, 0, kHidden}}, .output = 1},
               {.op = Op::kRmsNorm, .inputs = {{1, 0, kHidden}}, .output = 2, .vector = 0},
               {.op = Op::kMatmul, .inputs = {{2, 0, kHidden}}, .output = 3, .matrix = 0}};
    m.logits = 3;
    ops::PackedMatrix head;
    head.view = {.format = ops::PanelFormat::kF32,
                 .rows = kVocab,
                 .cols = kHidden,
                 .panels = 2,
                 .panel_bytes = 64 * kHidden,
                 .data = reinterpret_cast<const uint8_t*>(head_.data())};
    m.matrices.push_back(std::move(head));
    m.vectors = {std::vector<float>(kHidden, 1.5f)};
    m.embedding = {DType::kF32, kVocab, kHidden,
                   reinterpret_cast<const uint8_t*>(embedding_.data())};
  }

  CompiledModel model;

 private:
  std::vector<float> head_, embedding_;
};

// A path of its own for one test, gone with it.
class PlanFileTest : public testing::Test {
 protected:
  PlanFileTest()
      : path_((std::filesystem::path(testing::TempDir()) /
               fmt::format("plan_file_test_{}_{}.kvplan", getpid(),
                           testing::UnitTest::GetInstance()->current_test_info()->name()))
                  .string()) {}
  ~PlanFileTest() override { std::filesystem::remove(path_); }

  std::vector<uint8_t> Written(const CompiledModel& model) {
    const Status status =
        WritePlan(model, {{"/models/small.gguf", 123, 456}}, path_, [](int64_t, int64_t) {});
    EXPECT_TRUE(status.ok()) << status;
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  const std::string path_;
  SmallModel small_;
};

std::string ErrorOf(const std::vector<uint8_t>& bytes) {
  const StatusOr<PlanFile> plan = ParsePlan(bytes);
  return plan.ok() ? "OK" : std::string(plan.status().message());
}

// The file with its header rewritten in place.
std::vector<uint8_t> WithHeader(std::vector<uint8_t> file, const std::function<void(json&)>& edit) {
  uint32_t size;
  std::memcpy(&size, &file[12], 4);
  json header = json::parse(file.begin() + 16, file.begin() + 16 + size);
  edit(header);
  std::string text = header.dump();
  EXPECT_LE(text.size(), 4096u - 16);
  text.resize(size, ' ');
  std::copy(text.begin(), text.end(), file.begin() + 16);
  return file;
}

TEST_F(PlanFileTest, ReadsWhatWasWritten) {
  Written(small_.model);
  const StatusOr<PlanFile> read = ReadPlan(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  const CompiledModel& m = read->model;
  EXPECT_EQ(m.name, "small");
  EXPECT_EQ(m.fingerprint, "f00d");
  EXPECT_EQ(m.text.gguf_vocab->tokens, small_.model.text.gguf_vocab->tokens);
  EXPECT_EQ(m.text.gguf_vocab->add_bos, true);
  EXPECT_FALSE(m.text.tokenizer_json.has_value());
  EXPECT_EQ(m.rms_eps, 1e-5f);
  EXPECT_EQ(m.kv_type, ops::KvType::kInt8);
  ASSERT_EQ(m.nodes.size(), 4u);
  EXPECT_EQ(m.nodes[2].op, Op::kRmsNorm);
  EXPECT_EQ(m.vectors, small_.model.vectors);
  const ops::PanelView& view = m.matrices[0].view;
  EXPECT_EQ(view.panels, 2);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % 64, 0u);
  EXPECT_EQ(std::memcmp(view.data, small_.model.matrices[0].view.data, 2 * view.panel_bytes), 0);
  EXPECT_EQ(std::memcmp(m.embedding.data, small_.model.embedding.data, 4 * kVocab * kHidden), 0);
  EXPECT_EQ(read->sources, (std::vector<SourceFile>{{"/models/small.gguf", 123, 456}}));
}

TEST_F(PlanFileTest, RefusesAFileTruncatedAnywhere) {
  const std::vector<uint8_t> whole = Written(small_.model);
  ASSERT_EQ(ErrorOf(whole), "OK");
  for (size_t size = 0; size < whole.size(); size += size < 4096 ? 1 : 97) {
    const std::vector<uint8_t> part(whole.begin(), whole.begin() + size);
    EXPECT_THAT(ErrorOf(part), StartsWith("plan: ")) << size;
  }
}

TEST_F(PlanFileTest, SurvivesDamageInItsHeader) {
  const std::vector<uint8_t> whole = Written(small_.model);
  std::mt19937 random(5);
  for (int round = 0; round < 1000; ++round) {
    std::vector<uint8_t> damaged = whole;
    damaged[random() % 4096] = static_cast<uint8_t>("0123456789-.e[]{},:\" kx"[random() % 23]);
    ParsePlan(damaged).status().IgnoreError();
  }
}

TEST_F(PlanFileTest, SaysWhatAnotherVersionNeeds) {
  std::vector<uint8_t> file = Written(small_.model);
  file[8] = 9;
  const StatusOr<PlanFile> read = ParsePlan(file);
  EXPECT_EQ(read.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(read.status().message()),
              testing::AllOf(HasSubstr("version 9"), HasSubstr("build it again")));
  file[0] = 'X';
  EXPECT_THAT(ErrorOf(file), HasSubstr("magic"));
}

TEST_F(PlanFileTest, NamesTheFieldThatLies) {
  const std::vector<uint8_t> whole = Written(small_.model);
  const std::tuple<const char*, const char*, json> lies[] = {
      {"/model/layers", "layers", 0},
      {"/model/layers", "layers", "1"},
      {"/model/heads", "heads", 1e9},
      {"/model/eos_ids/0", "eos_ids", 20},
      {"/model/ropes/0/width", "ropes", 3},
      {"/model/ropes/0/scaling", "scaling", "spiral"},
      {"/model/kv_type", "kv_type", "int3"},
      {"/model/nodes/0/op", "op", "melt"},
      {"/model/nodes/2/vector", "node 2 (rms_norm)", 1},
      {"/model/nodes/2/head_width", "node 2 (rms_norm)", -1},
      {"/model/nodes/3/matrix", "node 3 (matmul)", 7},
      {"/model/nodes/3/output", "node 3 (matmul)", 0},
      {"/model/nodes/3/inputs/0/value", "node 3 (matmul)", 99},
      {"/model/nodes/1/inputs/0/column", "node 1 (select_rows)", 1},
      {"/model/values/0/width", "node 0", 64},
      {"/model/values/0/width", "value 'x'", 0},
      {"/model/values/0/copies", "value 'x'", 0},
      {"/model/ropes", "ropes", json::array()},
      {"/model/values/2/type", "node 3 (matmul)", "int8"},
      {"/matrices/0/rows", "matrix", 40},
      {"/matrices/0/cols", "matrix", -32},
      {"/matrices/0/group", "matrix", 32},
      {"/matrices/0/format", "matrix", "INT4"},
      {"/model/embedding/type", "embedding", "I8"},
      {"/matrix_sections/0/offset", "matrix", 1 << 30},
      {"/matrix_sections/0/offset", "matrix", 17},
      {"/vector_sections/0/bytes", "vector", -4},
      {"/embedding_section/bytes", "embedding", 1},
      {"/model/embedding/rows", "embedding", 21},
      {"/text_section/bytes", "text", 1},
      {"/file_bytes", "bytes", 5}};
  for (const auto& [pointer, name, value] : lies) {
    const auto damaged =
        WithHeader(whole, [&](json& h) { h[json::json_pointer(pointer)] = value; });
    EXPECT_THAT(ErrorOf(damaged), HasSubstr(name)) << pointer << " " << value;
  }
  // Of a format with groups they divide the columns.
  for (const int group : {-32, 0, 16, 64}) {
    const auto damaged = WithHeader(whole, [&](json& h) {
      h["matrices"][0]["format"] = "INT8+zero";
      h["matrices"][0]["group"] = group;
    });
    EXPECT_THAT(ErrorOf(damaged), HasSubstr("matrix 0 has an impossible shape")) << group;
  }
  const auto missing = WithHeader(whole, [](json& h) { h["model"].erase("vocab"); });
  EXPECT_THAT(ErrorOf(missing), HasSubstr("header.model: has no vocab"));
}

TEST_F(PlanFileTest, AnOrderOfColumnsStaysWithinThem) {
  CompiledModel& m = small_.model;
  m.values.insert(m.values.begin() + 3,
                  {"final.q", Rows::kOutput, graph::ValueType::kQuantized, kHidden});
  m.nodes.insert(m.nodes.begin() + 3,
                 {.op = Op::kQuantize, .inputs = {{2, 0, kHidden}}, .output = 3, .order = 0});
  m.nodes[4].inputs = {{2, 0, kHidden}};
  m.nodes[4].output = m.logits = 4;
  std::vector<int32_t> order(kHidden);
  for (int32_t i = 0; i < kHidden; ++i) order[i] = kHidden - 1 - i;
  m.orders = {order};
  const std::vector<uint8_t> whole = Written(m);
  const StatusOr<PlanFile> read = ParsePlan(whole);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->model.orders, m.orders);
  m.orders = {std::vector<int32_t>(kHidden - 1)};
  EXPECT_THAT(ErrorOf(Written(m)), HasSubstr("no such order"));
  for (const int32_t column : {-1, kHidden}) {
    m.orders = {std::vector<int32_t>(kHidden, column)};
    EXPECT_THAT(ErrorOf(Written(m)), HasSubstr("names a column that is not there"));
  }
  m.nodes[3].order = 1;
  EXPECT_THAT(ErrorOf(Written(m)), HasSubstr("no such order"));
}

TEST_F(PlanFileTest, LeavesNothingWhereItCannotWrite) {
  const Status status =
      WritePlan(small_.model, {}, "/nonexistent/folder/x.kvplan", [](int64_t, int64_t) {});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/folder/x.kvplan"));
  small_.model.text.gguf_vocab->tokens = {"\xff"};
  EXPECT_THAT(std::string(WritePlan(small_.model, {}, path_, [](int64_t, int64_t) {}).message()),
              HasSubstr("UTF-8"));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace kvasir::plan
