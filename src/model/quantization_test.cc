#include "model/quantization.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "model/safetensors.h"
#include "model/tensor_layout.h"
#include "ops/packing.h"

namespace kvasir::model {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// ---- Configuration ----

StatusOr<ModelConfig> Config(const json& quantization) {
  const json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"num_hidden_layers", 1},
                       {"hidden_size", 64},
                       {"num_attention_heads", 4},
                       {"intermediate_size", 96},
                       {"vocab_size", 10},
                       {"quantization_config", quantization}};
  return HuggingFaceConfig(config.dump());
}

std::string ErrorOf(const json& quantization) {
  const auto config = Config(quantization);
  return config.ok() ? "OK" : std::string(config.status().message());
}

TEST(ReadQuantization, TakesEveryMethod) {
  const auto method = [](const json& quantization) {
    const auto config = Config(quantization);
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? config->quantization : QuantizationConfig();
  };
  EXPECT_EQ(method(nullptr).method, QuantMethod::kNone);
  EXPECT_EQ(method({{"quant_method", "awq"}, {"bits", 4}, {"version", "GEMM"}}).method,
            QuantMethod::kAwq);
  const json gptq = {{"quant_method", "gptq"}, {"bits", 8}};
  EXPECT_EQ(method(gptq).method, QuantMethod::kGptq);
  EXPECT_EQ(method(gptq).zero_offset, 1);
  json second = gptq;
  second["checkpoint_format"] = "gptq_v2";
  EXPECT_EQ(method(second).zero_offset, 0);
  EXPECT_EQ(method({{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"}}).method,
            QuantMethod::kCompressedTensors);
  EXPECT_EQ(method({{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}}).method,
            QuantMethod::kFp8);
}

TEST(ReadQuantization, NamesTheFieldThatIsNotSupported) {
  const std::pair<json, const char*> wrong[] = {
      {{{"quant_method", "bitsandbytes"}}, "quant_method: 'bitsandbytes'"},
      {{{"quant_method", "mxfp4"}}, "quant_method: 'mxfp4'"},  // of llama
      {{{"quant_method", "awq"}, {"bits", 3}}, "bits: '3'"},
      {{{"quant_method", "awq"}, {"w_bit", 8}}, "w_bit: '8'"},
      {{{"quant_method", "awq"}, {"version", "gemv"}}, "version: 'gemv'"},
      {{{"quant_method", "awq"}, {"zero_point", false}}, "zero_point: 'false'"},
      {{{"quant_method", "gptq"}}, "bits: missing"},
      {{{"quant_method", "gptq"}, {"bits", 2}}, "bits: '2'"},
      {{{"quant_method", "gptq"}, {"bits", 4}, {"checkpoint_format", "marlin"}},
       "checkpoint_format: 'marlin'"},
      {{{"quant_method", "compressed-tensors"}}, "format: ''"},
      {{{"quant_method", "compressed-tensors"}, {"format", "nvfp4-pack-quantized"}},
       "format: 'nvfp4-pack-quantized'"},
      {{{"quant_method", "compressed-tensors"},
        {"format", "int-quantized"},
        {"sparsity_config", {{"format", "sparse-24-bitmask"}}}},
       "sparsity_config.format: 'sparse-24-bitmask'"},
      {{{"quant_method", "compressed-tensors"},
        {"format", "int-quantized"},
        {"transform_config", {{"config_groups", json::object()}}}},
       "transform_config: 'it'"},
      {{{"quant_method", "fp8"}, {"weight_block_size", {64, 64}}}, "weight_block_size"},
      {{{"quant_method", "fp8"}, {"fmt", "e5m2"}}, "fmt: 'e5m2'"}};
  for (const auto& [quantization, what] : wrong) {
    EXPECT_THAT(ErrorOf(quantization),
                AllOf(HasSubstr("config.json: quantization_config."), HasSubstr(what)));
  }
}

// ---- Tensors ----

constexpr int64_t kRows = 16, kCols = 64;

// A checkpoint of one matrix, "m", and the bytes of its tensors.
class JoinTest : public testing::Test {
 protected:
  template <typename T>
  void Add(const std::string& name, DType type, int64_t rows, int64_t cols,
           const std::vector<T>& values) {
    std::vector<uint8_t>& bytes = bytes_.emplace_back(values.size() * sizeof(T));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    ASSERT_EQ(static_cast<int64_t>(bytes.size()), rows * cols * Info(type).block_bytes);
    checkpoint_.tensors[name] = {type, rows, cols, bytes};
  }
  void AddInts(const std::string& name, int64_t rows, int64_t cols, int32_t value = 0x12345678) {
    Add(name, DType::kI32, rows, cols, std::vector<int32_t>(rows * cols, value));
  }
  void AddScales(const std::string& name, int64_t rows, int64_t cols) {
    Add(name, DType::kF32, rows, cols, std::vector<float>(rows * cols, 0.5f));
  }
  void AddOrder(const std::string& name, const std::vector<int32_t>& groups) {
    Add(name, DType::kI32, 1, static_cast<int64_t>(groups.size()), groups);
  }

  void MakeGptq() {
    checkpoint_.config.quantization = {QuantMethod::kGptq, 1};
    AddInts("m.qweight", kCols / 8, kRows);
    AddInts("m.qzeros", 2, kRows / 8);
    AddScales("m.scales", 2, kRows);
  }
  void MakeAwq() {
    checkpoint_.config.quantization = {QuantMethod::kAwq};
    AddInts("m.qweight", kCols, kRows / 8);
    AddInts("m.qzeros", 2, kRows / 8);
    AddScales("m.scales", 2, kRows);
  }
  void MakePacked() {
    checkpoint_.config.quantization = {QuantMethod::kCompressedTensors};
    AddInts("m.weight_packed", kRows, kCols / 8);
    Add("m.weight_shape", DType::kI64, 1, 2, std::vector<int64_t>{kRows, kCols});
    AddInts("m.weight_zero_point", kRows / 8, 2);
    AddScales("m.weight_scale", kRows, 2);
  }
  void MakeBytes() {
    checkpoint_.config.quantization = {QuantMethod::kCompressedTensors};
    Add("m.weight", DType::kI8, kRows, kCols, std::vector<int8_t>(kRows * kCols, -3));
    AddScales("m.weight_scale", kRows, 1);
  }
  void MakeFloats(int64_t rows, int64_t cols) {
    checkpoint_.config.quantization = {QuantMethod::kFp8};
    Add("m.weight", DType::kF8E4M3, rows, cols, std::vector<uint8_t>(rows * cols, 0x38));
  }

  std::string Error() {
    const Status status = JoinQuantized(checkpoint_);
    return status.ok() ? "OK" : std::string(status.message());
  }
  // After joining.
  ops::MatrixSource Source() const {
    const TensorView& view = *checkpoint_.Find("m.weight");
    return {view.dtype, view.rows, view.cols, view.bytes.data(), view.scaled.get()};
  }
  std::vector<float> Row(int64_t row) const {
    const ops::MatrixSource source = Source();
    std::vector<float> out(source.cols);
    ops::LoadRow(source, row, out.data());
    return out;
  }

  Checkpoint checkpoint_;
  std::list<std::vector<uint8_t>> bytes_;
};

TEST_F(JoinTest, MakesOneMatrixOfItsTensors) {
  MakeGptq();
  ASSERT_EQ(Error(), "OK");
  EXPECT_EQ(checkpoint_.tensors.size(), 1u);
  const TensorView& view = *checkpoint_.Find("m.weight");
  EXPECT_EQ(view.dtype, DType::kInt4);
  EXPECT_THAT(std::vector<int64_t>({view.rows, view.cols}), ElementsAre(kRows, kCols));
  EXPECT_EQ(view.scaled->group_columns, 32);
  // Columns 0 and 1 hold 8 and 7; the zero point of row 3 is 5 + 1.
  EXPECT_EQ(Row(3)[0], 0.5f * (8 - 6));
  EXPECT_EQ(Row(3)[1], 0.5f * (7 - 6));
}

TEST_F(JoinTest, ReadsRowsInTheOrderOfAwq) {
  MakeAwq();
  ASSERT_EQ(Error(), "OK");
  EXPECT_EQ(checkpoint_.Find("m.weight")->rows, kRows);
  // A word's items 8, 7, 6, ... are rows 0, 2, 4, 6, 1, ...; each has its own as zero point.
  EXPECT_EQ(Row(1)[0], 0.0f);
  checkpoint_.tensors.clear();
  MakeAwq();
  AddInts("m.qzeros", 2, kRows / 8, 0);
  ASSERT_EQ(Error(), "OK");
  EXPECT_EQ(Row(0)[0], 0.5f * 8);
  EXPECT_EQ(Row(1)[0], 0.5f * 4);
  EXPECT_EQ(Row(2)[5], 0.5f * 7);
}

TEST_F(JoinTest, ReadsPackedAndPlainIntegers) {
  MakePacked();
  ASSERT_EQ(Error(), "OK");
  EXPECT_EQ(Row(2)[0], 0.5f * (8 - 6));
  checkpoint_.tensors.clear();
  MakeBytes();
  ASSERT_EQ(Error(), "OK");
  EXPECT_EQ(Row(0)[0], -1.5f);
  EXPECT_FALSE(checkpoint_.Find("m.weight")->scaled->has_zero);
}

TEST_F(JoinTest, TakesZeroPointsOfPlainIntegers) {
  MakeBytes();
  Add("m.weight_zero_point", DType::kI8, kRows, 1, std::vector<int8_t>(kRows, 5));
  ASSERT_EQ(Error(), "OK");
  EXPECT_EQ(Row(7)[9], 0.5f * (-3 - 5));
}

TEST_F(JoinTest, ZeroPointsInTheMiddleAreNone) {
  MakeGptq();
  AddInts("m.qzeros", 2, kRows / 8, 0x77777777);
  ASSERT_EQ(Error(), "OK");
  EXPECT_FALSE(checkpoint_.Find("m.weight")->scaled->has_zero);
  EXPECT_EQ(Row(0)[1], 0.5f * (7 - 8));
}

TEST_F(JoinTest, TakesScalesOfFloatsInEveryForm) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {160, 1}, {1, 160}, {2, 2}}) {
    checkpoint_.tensors.clear();
    MakeFloats(160, 192);
    std::vector<float> scales(rows * cols);
    for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<float>(i + 1);
    Add("m.weight_scale", DType::kF32, rows, cols, scales);
    ASSERT_EQ(Error(), "OK");
    const float last = rows * cols == 1 ? 1.0f : rows == 2 ? 3.0f : 151.0f;
    EXPECT_EQ(Row(150)[0], last) << rows << " " << cols;
    EXPECT_EQ(Row(0)[190], rows == 2 ? 2.0f : 1.0f);
  }
}

TEST_F(JoinTest, SortsColumnsByTheirGroups) {
  MakeGptq();
  std::vector<int32_t> groups(kCols);
  for (int64_t i = 0; i < kCols; ++i) groups[i] = i % 2 == 0 ? 1 : 0;
  AddOrder("m.g_idx", groups);
  ASSERT_EQ(Error(), "OK");
  const std::vector<int32_t>& order = checkpoint_.Find("m.weight")->scaled->order;
  ASSERT_EQ(order.size(), static_cast<size_t>(kCols));
  EXPECT_EQ(order[0], 1);
  EXPECT_EQ(order[31], 63);
  EXPECT_EQ(order[32], 0);
  for (int64_t i = 0; i < kCols; ++i) groups[i] = static_cast<int32_t>(i / 32);
  checkpoint_.tensors.clear();
  MakeGptq();
  AddOrder("m.g_idx", groups);
  ASSERT_EQ(Error(), "OK");
  EXPECT_TRUE(checkpoint_.Find("m.weight")->scaled->order.empty());
}

TEST_F(JoinTest, NamesTheTensorAtFault) {
  std::vector<int32_t> outside(kCols, 0), uneven(kCols, 0);
  for (int64_t i = 32; i < kCols; ++i) outside[i] = 2, uneven[i] = 1;
  uneven[0] = 1;
  const std::pair<std::function<void()>, std::vector<const char*>> cases[] = {
      {[&] { MakeGptq(), checkpoint_.tensors.erase("m.scales"); }, {"'m.scales'", "missing"}},
      {[&] { MakeGptq(), checkpoint_.tensors.erase("m.qzeros"); }, {"'m.qzeros'", "missing"}},
      {[&] { MakeGptq(), AddScales("m.qzeros", 2, 2); }, {"'m.qzeros'", "F32", "I32"}},
      {[&] { MakeGptq(), AddInts("m.scales", 2, kRows); }, {"'m.scales'", "I32", "BF16"}},
      {[&] { MakeGptq(), AddInts("m.qzeros", 2, 3); }, {"'m.qzeros'", "[2, 3]", "16"}},
      {[&] { MakeGptq(), AddInts("m.qzeros", 3, 2); }, {"'m.qzeros'", "[3, 2]", "[2, 2]"}},
      {[&] { MakeGptq(), AddScales("m.scales", 2, 8); }, {"'m.scales'", "[2, 8]", "[2, 16]"}},
      {[&] { MakeGptq(), AddScales("m.scales", 4, 16), AddInts("m.qzeros", 4, 2); },
       {"'m.scales'", "4 groups of 64 columns"}},
      {[&] { MakeGptq(), AddScales("m.scales", 5, 16), AddInts("m.qzeros", 5, 2); },
       {"'m.scales'", "5 groups of 64 columns"}},
      {[&] { MakeGptq(), AddOrder("m.g_idx", outside); }, {"'m.g_idx'", "group 2 of 2"}},
      {[&] { MakeGptq(), AddOrder("m.g_idx", {-1, 0}); }, {"'m.g_idx'", "[1, 2]", "[1, 64]"}},
      {[&] { MakeGptq(), AddOrder("m.g_idx", uneven); }, {"'m.g_idx'", "31 columns and not 32"}},
      {[&] { MakeGptq(), AddScales("m.weight", kRows, kCols); }, {"'m.weight'", "beside"}},
      {[&] { MakeAwq(), AddInts("m.qzeros", 2, 3); }, {"'m.qzeros'", "[2, 3]", "[2, 2]"}},
      {[&] { MakeAwq(), AddScales("m.scales", 2, 8); }, {"'m.scales'", "[2, 8]", "[2, 16]"}},
      {[&] { MakePacked(), checkpoint_.tensors.erase("m.weight_shape"); }, {"'m.weight_shape'"}},
      {[&] {
         MakePacked();
         Add("m.weight_shape", DType::kI64, 1, 2, std::vector<int64_t>{kRows, -8});
       },
       {"'m.weight_shape'", "[16, -8]", "[16, 8]"}},
      {[&] {
         MakePacked();
         Add("m.weight_shape", DType::kI64, 1, 2, std::vector<int64_t>{kRows, 48});
       },
       {"'m.weight_packed'", "neither 4 nor 8 bits"}},
      {[&] { MakePacked(), AddScales("m.weight_scale", 8, 2); },
       {"'m.weight_scale'", "[8, 2]", "[16, 2]"}},
      {[&] { MakePacked(), AddInts("m.weight_zero_point", 2, 4); },
       {"'m.weight_zero_point'", "[2, 4]", "[2, 2]"}},
      {[&] { MakeBytes(), AddScales("m.weight_scale", 3, 1); },
       {"'m.weight_scale'", "[3, 1]", "[1, 16]"}},
      {[&] { MakeBytes(), checkpoint_.tensors.erase("m.weight_scale"); }, {"'m.weight_scale'"}},
      {[&] { MakeFloats(160, 192), AddScales("m.weight_scale_inv", 3, 2); },
       {"'m.weight_scale_inv'", "[3, 2]", "[2, 2]"}},
      {[&] { MakeFloats(160, 192); }, {"'m.weight_scale'", "missing"}}};
  for (const auto& [make, parts] : cases) {
    checkpoint_.tensors.clear();
    make();
    const std::string error = Error();
    for (const char* part : parts) EXPECT_THAT(error, HasSubstr(part));
  }
}

TEST(Mxfp4ViewTest, TakesEveryOtherRowOfOneOfSeveral) {
  // Two matrices of 4 rows and 32 columns: row r of matrix m holds the code 2 r + m throughout.
  std::vector<uint8_t> blocks, scales;
  for (int m = 0; m < 2; ++m) {
    for (int r = 0; r < 4; ++r) {
      blocks.insert(blocks.end(), 16, static_cast<uint8_t>((2 * r + m) * 0x11));
      scales.push_back(static_cast<uint8_t>(127 + m));
    }
  }
  const TensorView stored{DType::kU8, 8, 16, blocks}, powers{DType::kU8, 8, 1, scales};
  const TensorView view = Mxfp4View(stored, powers, {1, 4, 32, 1, 2});
  EXPECT_EQ(view.rows, 2);
  std::vector<float> row(32);
  const auto load = [&](int64_t r) {
    ops::LoadRow({view.dtype, view.rows, view.cols, view.bytes.data(), view.scaled.get()}, r,
                 row.data());
    return row[7];
  };
  EXPECT_EQ(load(0), 2 * 1.5f);  // code 3 of scale 2
  EXPECT_EQ(load(1), 2 * 6.0f);  // code 7
}

// The experts of a layer of gpt-oss in MXFP4: two of 32 columns and as many rows.
class SplitMxfp4Test : public testing::Test {
 protected:
  SplitMxfp4Test() : bytes_(2 * 64 * 16, 0x11) {
    ModelConfig& c = checkpoint_.config;
    c.architecture = "gpt-oss";
    c.layers = 1;
    c.heads = c.kv_heads = 1;
    c.hidden = c.head_dim = c.ffn = c.moe.ffn = 32;
    c.moe.routing = {.experts = 2, .used = 1};
    Add("gate_up_proj_blocks", 2 * 64, 16);
    Add("gate_up_proj_scales", 2 * 64, 1);
    Add("down_proj_blocks", 2 * 32, 16);
    Add("down_proj_scales", 2 * 32, 1);
  }

  static std::string Name(const std::string& part) { return "model.layers.0.mlp.experts." + part; }
  void Add(const std::string& part, int64_t rows, int64_t cols, DType type = DType::kU8) {
    checkpoint_.tensors[Name(part)] = {type, rows, cols, {bytes_.data(), size_t(rows * cols)}};
  }
  std::string Error() {
    const Status status = SplitTensors(checkpoint_);
    return status.ok() ? "OK" : std::string(status.message());
  }

  std::vector<uint8_t> bytes_;
  Checkpoint checkpoint_;
};

TEST_F(SplitMxfp4Test, MakesAMatrixOfEachExpertAndSide) {
  ASSERT_EQ(Error(), "OK");
  EXPECT_EQ(checkpoint_.tensors.size(), 6u);
  for (const char* name : {"ffn_gate.0", "ffn_up.1", "ffn_down.1"}) {
    const TensorView* view = checkpoint_.Find(fmt::format("blk.0.{}.weight", name));
    ASSERT_NE(view, nullptr) << name;
    EXPECT_EQ(view->dtype, DType::kMxfp4);
    EXPECT_THAT(std::vector<int64_t>({view->rows, view->cols}), ElementsAre(32, 32));
  }
}

TEST_F(SplitMxfp4Test, NamesTheTensorAtFault) {
  const Checkpoint whole{.config = checkpoint_.config, .tensors = checkpoint_.tensors};
  const std::pair<std::function<void()>, std::vector<std::string>> cases[] = {
      {[&] { checkpoint_.tensors.erase(Name("down_proj_scales")); },
       {Name("down_proj_scales"), "missing"}},
      {[&] { Add("gate_up_proj_scales", 2 * 64, 1, DType::kI8); },
       {Name("gate_up_proj_scales"), "I8", "U8"}},
      {[&] { Add("down_proj_blocks", 2 * 31, 16); }, {Name("down_proj_blocks"), "[62, 16]"}},
      {[&] { checkpoint_.config.hidden = 48; }, {Name("gate_up_proj"), "48 columns"}}};
  for (const auto& [damage, parts] : cases) {
    checkpoint_.config = whole.config;
    checkpoint_.tensors = whole.tensors;
    damage();
    const std::string error = Error();
    for (const std::string& part : parts) EXPECT_THAT(error, HasSubstr(part));
  }
}

}  // namespace
}  // namespace kvasir::model
