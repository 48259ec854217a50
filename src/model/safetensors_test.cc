#include "model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include <fmt/format.h>

namespace kvasir::model {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string MessageOf(const auto& result) {
  return result.ok() ? "OK" : std::string(result.status().message());
}

std::vector<uint8_t> Container(const std::string& header, const std::string& data,
                               std::optional<uint64_t> claimed_size = std::nullopt) {
  const uint64_t size = claimed_size.value_or(header.size());
  std::vector<uint8_t> out(sizeof(size));
  std::memcpy(out.data(), &size, sizeof(size));
  out.insert(out.end(), header.begin(), header.end());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

json Entry(const char* dtype, const json& shape, const json& begin, const json& end) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

std::string ErrorOf(const json& header, size_t data_size) {
  const std::vector<uint8_t> bytes = Container(header.dump(), std::string(data_size, '\0'));
  return MessageOf(ParseSafetensors(bytes));
}

// Two tensors, the second of which ends with the file.
std::vector<uint8_t> GoodFile() {
  const json header = {{"__metadata__", {{"format", "pt"}}},
                       {"a", Entry("F32", {2, 3}, 0, 24)},
                       {"b", Entry("BF16", {4}, 24, 32)}};
  return Container(header.dump(), "0123456789abcdefghijklmnopqrstuv");
}

json GoodConfig() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"num_hidden_layers", 1},
          {"hidden_size", 64},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"intermediate_size", 96},
          {"vocab_size", 10},
          {"max_position_embeddings", 256},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500000.0},
          {"eos_token_id", 2}};
}

StatusOr<ModelConfig> Config(const json& config) { return HuggingFaceConfig(config.dump()); }

// A folder of its own for one test, gone with it.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::path(testing::TempDir()) /
              fmt::format("safetensors_test_{}_{}", getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }
  void Write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
  }
  void WriteTensor(const std::string& file, const std::string& tensor, char fill) const {
    const std::vector<uint8_t> bytes =
        Container(json{{tensor, Entry("F16", {2, 2}, 0, 8)}}.dump(), std::string(8, fill));
    Write(file, std::string(bytes.begin(), bytes.end()));
  }

 private:
  std::filesystem::path path_;
};

TEST(ParseSafetensors, ReadsTensors) {
  const std::vector<uint8_t> bytes = GoodFile();
  const StatusOr<TensorMap> tensors = ParseSafetensors(bytes);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 2u);
  const TensorView& a = tensors->at("a");
  EXPECT_EQ(a.dtype, DType::kF32);
  EXPECT_EQ(a.rows, 2);
  EXPECT_EQ(a.cols, 3);
  EXPECT_EQ(std::string(a.bytes.begin(), a.bytes.end()), "0123456789abcdefghijklmn");
  const TensorView& b = tensors->at("b");
  EXPECT_EQ(b.dtype, DType::kBf16);
  EXPECT_EQ(b.rows, 1);
  EXPECT_EQ(b.cols, 4);
  EXPECT_EQ(std::string(b.bytes.begin(), b.bytes.end()), "opqrstuv");
}

TEST(ParseSafetensors, RefusesAFileTruncatedAnywhere) {
  const std::vector<uint8_t> whole = GoodFile();
  ASSERT_TRUE(ParseSafetensors(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    // A buffer of exactly this size, so that a sanitizer sees any read past it.
    const std::vector<uint8_t> part(whole.begin(), whole.begin() + size);
    EXPECT_FALSE(ParseSafetensors(part).ok()) << "cut to " << size << " bytes";
  }
}

TEST(ParseSafetensors, SurvivesEveryByteFlipped) {
  const std::vector<uint8_t> whole = GoodFile();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (uint8_t mask : {0x01, 0x02, 0x10, 0x80, 0xff}) {
      std::vector<uint8_t> damaged = whole;
      damaged[i] ^= mask;
      ParseSafetensors(damaged).IgnoreError();
    }
  }
}

TEST(ParseSafetensors, RefusesHeaderLengthsThatLie) {
  for (uint64_t claimed : {uint64_t{3}, uint64_t{1} << 30, uint64_t{1} << 63, ~uint64_t{0}}) {
    EXPECT_FALSE(ParseSafetensors(Container("{}", "", claimed)).ok()) << claimed;
  }
  EXPECT_THAT(MessageOf(ParseSafetensors(Container("{}", "", 1000))), HasSubstr("1000 bytes"));
  for (const char* header : {"", "[]", "1", "{", "{}x", "{\"a\": \xff}"}) {
    EXPECT_THAT(MessageOf(ParseSafetensors(Container(header, ""))), HasSubstr("JSON")) << header;
  }
}

TEST(ParseSafetensors, RefusesOffsetsThatLie) {
  for (const auto& [begin, end] : std::vector<std::pair<json, json>>{
           {0, 24}, {8, 32}, {24, 0}, {0, ~uint64_t{0}}, {~uint64_t{0} - 23, 0}}) {
    EXPECT_THAT(ErrorOf({{"bad", Entry("F32", {2, 3}, begin, end)}}, 23),
                AllOf(HasSubstr("'bad'"), HasSubstr("past the end")));
  }
  for (const auto& [begin, end] :
       std::vector<std::pair<json, json>>{{-1, 23}, {0.5, 24}, {"0", 24}, {nullptr, 24}}) {
    EXPECT_THAT(ErrorOf({{"bad", Entry("F32", {2, 3}, begin, end)}}, 24),
                AllOf(HasSubstr("'bad'"), HasSubstr("data_offsets")));
  }
  EXPECT_THAT(ErrorOf({{"a", Entry("F32", {2, 3}, 0, 24)}, {"b", Entry("F32", {1}, 20, 24)}}, 24),
              AllOf(HasSubstr("'b'"), HasSubstr("overlaps")));
  EXPECT_EQ(ErrorOf({{"b", Entry("F32", {2, 3}, 4, 28)}, {"a", Entry("F32", {1}, 0, 4)}}, 28),
            "OK");
}

TEST(ParseSafetensors, RefusesShapesThatDoNotFit) {
  for (const json& shape : std::vector<json>{{2, 2}, {7}, json::array(), {2, 3, 2}}) {
    EXPECT_THAT(ErrorOf({{"bad", Entry("F32", shape, 0, 24)}}, 24),
                AllOf(HasSubstr("'bad'"), HasSubstr("shape")));
  }
  const int64_t big = (int64_t{1} << 31) - 1;
  EXPECT_THAT(ErrorOf({{"bad", Entry("F32", {big, big, big, 2}, 0, 24)}}, 24),
              HasSubstr("'bad': is too large"));
  // 2^62 elements of four bytes are 2^64: the product must not wrap to zero.
  EXPECT_THAT(ErrorOf({{"bad", Entry("F32", {1 << 30, 1 << 30, 4}, 0, 0)}}, 0),
              HasSubstr("'bad': has a shape that does not fit"));
  for (const json& extent : std::vector<json>{0, -1, 1.5, "2", big + 1, nullptr}) {
    EXPECT_THAT(ErrorOf({{"bad", Entry("F32", {extent, 3}, 0, 24)}}, 24),
                AllOf(HasSubstr("'bad'"), HasSubstr("dimension")));
  }
  EXPECT_THAT(ErrorOf({{"bad", 1}}, 0), HasSubstr("'bad'"));
  EXPECT_THAT(ErrorOf({{"bad", json::object()}}, 0), HasSubstr("'bad': has no dtype"));
  EXPECT_THAT(ErrorOf({{"bad", {{"dtype", "F32"}}}}, 0), HasSubstr("'bad': has no shape"));
}

TEST(ParseSafetensors, NamesTensorAndDtypeItDoesNotRun) {
  for (const char* dtype : {"F8_E5M2", "BOOL", "F64", ""}) {
    EXPECT_THAT(ErrorOf({{"odd", Entry(dtype, {1}, 0, 8)}}, 8),
                HasSubstr(fmt::format("tensor 'odd' has dtype {};", dtype)));
  }
}

// A parser would keep one of the two in silence, and readers differ in which.
TEST(ParseSafetensors, NamesAKeyThatOccursTwice) {
  const std::string entry = Entry("F32", {1}, 0, 4).dump();
  for (const auto& [key, header] : std::vector<std::pair<std::string, std::string>>{
           {"twin", fmt::format(R"({{"twin": {}, "other": {}, "twin": {}}})", entry, entry, entry)},
           {"twin", fmt::format(R"({{"twin": {}, "tw\u0069n": {}}})", entry, entry)},
           {"dtype", R"({"a": {"dtype": "F32", "dtype": "F16", "shape": [2]}})"},
           {"format", R"({"__metadata__": {"format": "pt", "format": "np"}})"}}) {
    EXPECT_THAT(MessageOf(ParseSafetensors(Container(header, "0123"))),
                HasSubstr(fmt::format("key '{}' twice", key)))
        << header;
  }
}

TEST(ParseSafetensors, SurvivesDeepNesting) {
  constexpr size_t kDepth = 1 << 20;
  const std::string open(kDepth, '[');
  const std::string close(kDepth, ']');
  EXPECT_FALSE(ParseSafetensors(Container(open, "")).ok());
  EXPECT_FALSE(ParseSafetensors(Container(open + close, "")).ok());
  EXPECT_FALSE(ParseSafetensors(Container("{\"a\":" + open + close + "}", "")).ok());
  std::string objects;
  for (size_t i = 0; i < kDepth; ++i) objects += "{\"a\":";
  EXPECT_FALSE(ParseSafetensors(Container(objects, "")).ok());
  EXPECT_FALSE(HuggingFaceConfig(open + close).ok());
}

TEST(HuggingFaceConfig, ReadsAndDefaults) {
  json root = GoodConfig();
  StatusOr<ModelConfig> config = Config(root);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->rope.theta, 500000.0f);
  EXPECT_FALSE(config->interleaved_rope);
  EXPECT_THAT(config->eos_ids, ElementsAre(2));
  root.erase("num_key_value_heads");
  root["head_dim"] = 32;
  root["sliding_window"] = nullptr;
  root["eos_token_id"] = {1, 2, 1, 99, -1, "x"};
  config = Config(root);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->kv_heads, 4);
  EXPECT_EQ(config->head_dim, 32);
  EXPECT_EQ(config->sliding_window, 0);
  EXPECT_THAT(config->eos_ids, ElementsAre(1, 2));
}

TEST(HuggingFaceConfig, UsesTheSlidingWindowOfQwen2OnlyWhenTold) {
  json root = GoodConfig();
  root["architectures"] = {"Qwen2ForCausalLM"};
  root["sliding_window"] = 64;
  EXPECT_EQ(Config(root)->sliding_window, 0);
  root["use_sliding_window"] = true;
  EXPECT_EQ(Config(root)->sliding_window, 64);
}

TEST(HuggingFaceConfig, NamesTheKeyAtFault) {
  for (const char* key : {"num_hidden_layers", "hidden_size", "num_attention_heads",
                          "intermediate_size", "vocab_size", "architectures"}) {
    json root = GoodConfig();
    root.erase(key);
    EXPECT_THAT(MessageOf(Config(root)), StartsWith(fmt::format("config.json: {}: ", key)));
    for (const json& value : std::vector<json>{0, -1, 1.5, "64", ~uint64_t{0}, {{"a", 1}}}) {
      root[key] = value;
      EXPECT_THAT(MessageOf(Config(root)), StartsWith(fmt::format("config.json: {}: ", key)))
          << value;
    }
  }
  for (const char* key : {"rms_norm_eps", "rope_theta"}) {
    for (const json& value : std::vector<json>{0, -1.0, "1", 1e300, 1e-300}) {
      json root = GoodConfig();
      root[key] = value;
      EXPECT_THAT(MessageOf(Config(root)), StartsWith(fmt::format("config.json: {}: ", key)))
          << value;
    }
  }
  json root = GoodConfig();
  root["hidden_act"] = "gelu";
  EXPECT_THAT(MessageOf(Config(root)), AllOf(HasSubstr("hidden_act"), HasSubstr("gelu")));
  root = GoodConfig();
  root["architectures"] = {"RwkvForCausalLM"};
  EXPECT_THAT(MessageOf(Config(root)), AllOf(HasSubstr("architectures"), HasSubstr("Rwkv")));
  root = GoodConfig();
  root["rope_scaling"] = {{"rope_type", "spiral"}};
  EXPECT_THAT(MessageOf(Config(root)), AllOf(HasSubstr("rope_type"), HasSubstr("spiral")));
  root["rope_scaling"] = {{"type", "linear"}};
  EXPECT_THAT(MessageOf(Config(root)), HasSubstr("factor"));
  // More heads than the hidden size leave none of it to a head.
  root = GoodConfig();
  root["num_attention_heads"] = 128;
  EXPECT_THAT(MessageOf(Config(root)), HasSubstr("head_dim"));
  EXPECT_THAT(MessageOf(HuggingFaceConfig("nonsense")), HasSubstr("config.json"));
}

TEST(HuggingFaceConfig, ReadsRopeParametersOverTheOlderKeys) {
  json root = GoodConfig();
  root["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  const StatusOr<ModelConfig> config = Config(root);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.theta, 1e6f);
  EXPECT_EQ(config->rope.scaling, RopeScaling::kNone);
}

TEST(HuggingFaceConfig, ReadsLlama3Scaling) {
  json root = GoodConfig();
  root["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 8192}};
  const StatusOr<ModelConfig> config = Config(root);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(config->rope.factor, 8.0f);
  EXPECT_EQ(config->rope.original_context, 8192);
  for (const char* key :
       {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
    json damaged = root;
    damaged["rope_scaling"].erase(key);
    EXPECT_THAT(MessageOf(Config(damaged)), HasSubstr(key));
  }
  // Nothing lies between equal bounds, and interpolating there would divide by zero.
  root["rope_scaling"]["low_freq_factor"] = 4.0;
  EXPECT_THAT(MessageOf(Config(root)), HasSubstr("high_freq_factor"));
}

TEST(HuggingFaceConfig, ReadsLongRopeFactorsOfHalfTheHead) {
  json root = GoodConfig();
  root["architectures"] = {"Phi3ForCausalLM"};
  root["original_max_position_embeddings"] = 128;
  root["rope_scaling"] = {{"type", "longrope"},
                          {"short_factor", std::vector<float>(8, 1.0f)},
                          {"long_factor", std::vector<float>(8, 2.0f)}};
  const StatusOr<ModelConfig> config = Config(root);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.original_context, 128);
  EXPECT_EQ(config->rope.long_factors, std::vector<float>(8, 2.0f));
  root["rope_scaling"]["long_factor"] = {2.0, 2.0};
  EXPECT_THAT(MessageOf(Config(root)), HasSubstr("long_factor"));
  root["rope_scaling"]["long_factor"] = std::vector<float>(8, 0.0f);
  EXPECT_THAT(MessageOf(Config(root)), HasSubstr("not positive"));
}

TEST(HuggingFaceConfig, TakesAPartialRotationOnce) {
  json root = GoodConfig();
  root["partial_rotary_factor"] = 0.75;
  EXPECT_EQ(Config(root)->rope.width, 12);
  root["rope_parameters"] = {{"rope_type", "default"}, {"partial_rotary_factor", 0.75}};
  EXPECT_EQ(Config(root)->rope.width, 12);
}

TEST(HuggingFaceConfig, ReadsWhichLayersHaveAWindow) {
  json root = GoodConfig();
  root["architectures"] = {"Gemma2ForCausalLM"};
  root["hidden_activation"] = "gelu_pytorch_tanh";
  root["sliding_window"] = 64;
  root["num_hidden_layers"] = 3;
  EXPECT_THAT(Config(root)->windowed, ElementsAre(true, false, true));
  root["layer_types"] = {"full_attention", "sliding_attention", "full_attention"};
  EXPECT_THAT(Config(root)->windowed, ElementsAre(false, true, false));
  root["layer_types"] = {"full_attention"};
  EXPECT_THAT(MessageOf(Config(root)), HasSubstr("layer_types"));
  root["layer_types"] = {"full_attention", "linear_attention", "full_attention"};
  EXPECT_THAT(MessageOf(Config(root)), HasSubstr("linear_attention"));
}

TEST(LoadHuggingFace, LoadsAFolderOfTwoShards) {
  const Folder folder;
  folder.Write("config.json", GoodConfig().dump());
  folder.Write("generation_config.json", R"({"eos_token_id": [2, 3]})");
  folder.Write("tokenizer.json", "{}");
  folder.Write("tokenizer_config.json",
               R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": true,
                   "chat_template": [{"name": "tools", "template": "x"},
                                     {"name": "default", "template": "y"}]})");
  folder.WriteTensor("model-00001-of-00002.safetensors", "model.layers.0.self_attn.q_proj.weight",
                     'q');
  folder.WriteTensor("model-00002-of-00002.safetensors", "model.embed_tokens.weight", 'e');
  const StatusOr<Checkpoint> checkpoint = LoadCheckpoint(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->files.size(), 2u);
  EXPECT_THAT(checkpoint->config.eos_ids, ElementsAre(2, 3));
  for (const auto& [name, fill] :
       {std::pair{"blk.0.attn_q.weight", 'q'}, std::pair{"token_embd.weight", 'e'}}) {
    const TensorView* tensor = checkpoint->Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(std::string(tensor->bytes.begin(), tensor->bytes.end()), std::string(8, fill));
  }
  EXPECT_EQ(checkpoint->text.bos_token, "<s>");
  EXPECT_EQ(checkpoint->text.eos_token, "</s>");
  EXPECT_EQ(checkpoint->text.chat_template, "y");
  EXPECT_EQ(checkpoint->text.tokenizer_json, "{}");
}

TEST(LoadHuggingFace, TakesTheFilesThatTheIndexNames) {
  const Folder folder;
  folder.Write("config.json", GoodConfig().dump());
  folder.WriteTensor("model-00001-of-00001.safetensors", "lm_head.weight", 'a');
  folder.WriteTensor("consolidated.safetensors", "output.weight", 'b');
  EXPECT_THAT(MessageOf(LoadCheckpoint(folder.path())), HasSubstr("in two files"));
  const auto index = [&](const json& file) {
    folder.Write("model.safetensors.index.json",
                 json{{"weight_map", {{"lm_head.weight", file}}}}.dump());
    return MessageOf(LoadCheckpoint(folder.path()));
  };
  EXPECT_EQ(index("model-00001-of-00001.safetensors"), "OK");
  EXPECT_THAT(index("model-00002-of-00002.safetensors"), HasSubstr("model-00002-of-00002"));
  EXPECT_THAT(index("../x.safetensors"), HasSubstr("'lm_head.weight' names no file"));
  EXPECT_THAT(index(5), HasSubstr("weight_map"));
  folder.Write("model.safetensors.index.json", "[]");
  EXPECT_THAT(MessageOf(LoadCheckpoint(folder.path())), HasSubstr("weight_map: missing"));
}

TEST(LoadHuggingFace, NamesFolderFileAndTensor) {
  const Folder folder;
  EXPECT_THAT(MessageOf(LoadCheckpoint(folder.path())),
              AllOf(StartsWith(folder.path()), HasSubstr("config.json")));
  folder.Write("config.json", GoodConfig().dump());
  EXPECT_THAT(MessageOf(LoadCheckpoint(folder.path())),
              AllOf(StartsWith(folder.path()), HasSubstr(".safetensors")));
  folder.WriteTensor("a.safetensors", "lm_head.weight", 'a');
  folder.WriteTensor("b.safetensors", "lm_head.weight", 'b');
  EXPECT_THAT(MessageOf(LoadCheckpoint(folder.path())),
              AllOf(HasSubstr("b.safetensors"), HasSubstr("'lm_head.weight'")));
  folder.Write("b.safetensors", "short");
  EXPECT_THAT(MessageOf(LoadCheckpoint(folder.path())), HasSubstr("b.safetensors"));
}

TEST(LoadHuggingFace, SurvivesOddTokenizerConfigs) {
  const Folder folder;
  folder.Write("config.json", GoodConfig().dump());
  folder.WriteTensor("a.safetensors", "lm_head.weight", 'a');
  for (const char* content :
       {R"({"chat_template": [{"name": 5, "template": "x"}]})",
        R"({"chat_template": [{"name": "default", "template": 5}]})",
        R"({"chat_template": [1, null]})", R"({"chat_template": 1, "bos_token": 2})",
        R"({"bos_token": {"content": 1}, "eos_token": []})"}) {
    folder.Write("tokenizer_config.json", content);
    const StatusOr<Checkpoint> checkpoint = LoadCheckpoint(folder.path());
    ASSERT_TRUE(checkpoint.ok()) << content << ": " << checkpoint.status();
    EXPECT_EQ(checkpoint->text.chat_template, "");
  }
  folder.Write("tokenizer_config.json", "[]");
  EXPECT_THAT(MessageOf(LoadCheckpoint(folder.path())), HasSubstr("tokenizer_config.json"));
}

}  // namespace
}  // namespace kvasir::model
