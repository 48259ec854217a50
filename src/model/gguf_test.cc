#include "model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <fmt/format.h>

namespace kvasir::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uint32_t kF32Type = 0;
constexpr uint32_t kQ8_0Type = 8;

enum : uint32_t { kU32 = 4, kI32 = 5, kFloat = 6, kBoolean = 7, kStr = 8, kArr = 9 };

// Writes GGUF as the format document has it; the public fields let a test lie.
class Writer {
 public:
  uint32_t magic = 0x46554747;
  uint32_t version = 3;
  std::optional<uint64_t> tensor_count;
  std::optional<uint64_t> entry_count;

  template <typename T>
  static std::string Raw(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static std::string Text(const std::string& text) { return Raw<uint64_t>(text.size()) + text; }

  Writer& Entry(const std::string& key, uint32_t type, const std::string& payload) {
    entries_.emplace_back(key, Text(key) + Raw(type) + payload);
    return *this;
  }
  Writer& String(const std::string& key, const std::string& v) { return Entry(key, kStr, Text(v)); }
  Writer& Int(const std::string& key, uint32_t v) { return Entry(key, kU32, Raw(v)); }
  Writer& Float(const std::string& key, float v) { return Entry(key, kFloat, Raw(v)); }
  Writer& Strings(const std::string& key, const std::vector<std::string>& v) {
    std::string payload = Raw<uint32_t>(kStr) + Raw<uint64_t>(v.size());
    for (const std::string& s : v) payload += Text(s);
    return Entry(key, kArr, payload);
  }
  Writer& Without(const std::string& key) {
    std::erase_if(entries_, [&](const auto& entry) { return entry.first == key; });
    return *this;
  }

  // `dims` as the file has them: the row's length first. Data goes to the next multiple of 32.
  Writer& Tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                 const std::string& data) {
    data_.resize((data_.size() + 31) / 32 * 32);
    Header(name, dims, type, data_.size());
    data_ += data;
    return *this;
  }
  Writer& Header(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                 uint64_t offset) {
    std::string header = Text(name) + Raw<uint32_t>(dims.size());
    for (uint64_t extent : dims) header += Raw(extent);
    headers_.push_back(header + Raw(type) + Raw(offset));
    return *this;
  }

  std::vector<uint8_t> Bytes() const {
    std::string out = Raw(magic) + Raw(version) +
                      Raw<uint64_t>(tensor_count.value_or(headers_.size())) +
                      Raw<uint64_t>(entry_count.value_or(entries_.size()));
    for (const auto& [key, bytes] : entries_) out += bytes;
    for (const std::string& header : headers_) out += header;
    if (!data_.empty()) out.resize((out.size() + 31) / 32 * 32);
    out += data_;
    return std::vector<uint8_t>(out.begin(), out.end());
  }

  void Save(const std::filesystem::path& path) const {
    const std::vector<uint8_t> bytes = Bytes();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

 private:
  std::vector<std::pair<std::string, std::string>> entries_;
  std::vector<std::string> headers_;
  std::string data_;
};

std::string Floats(size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += Writer::Raw(static_cast<float>(i));
  return out;
}

// A configuration that GgufConfig accepts, a vocabulary of 4 and an embedding of 4 x 32.
Writer GoodFile() {
  Writer w;
  w.String("general.architecture", "llama").String("general.name", "tiny");
  w.Int("llama.block_count", 1).Int("llama.embedding_length", 32);
  w.Int("llama.attention.head_count", 2).Int("llama.feed_forward_length", 64);
  w.Int("llama.context_length", 128).Float("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  w.String("tokenizer.ggml.model", "llama");
  w.Strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "a"});
  w.Int("tokenizer.ggml.bos_token_id", 1).Int("tokenizer.ggml.eos_token_id", 2);
  w.Tensor("token_embd.weight", {32, 4}, kF32Type, Floats(32 * 4));
  w.Tensor("output_norm.weight", {32}, kF32Type, Floats(32));
  return w;
}

std::string ErrorOf(const Writer& writer) {
  const std::vector<uint8_t> bytes = writer.Bytes();
  const StatusOr<GgufFile> file = ParseGguf(bytes);
  return file.ok() ? "OK" : std::string(file.status().message());
}

std::string ConfigErrorOf(const Writer& writer) {
  const std::vector<uint8_t> bytes = writer.Bytes();
  const StatusOr<GgufFile> file = ParseGguf(bytes);
  if (!file.ok()) return "does not parse: " + std::string(file.status().message());
  const StatusOr<ModelConfig> config = GgufConfig(*file);
  return config.ok() ? "OK" : std::string(config.status().message());
}

std::string TextErrorOf(const Writer& writer) {
  const std::vector<uint8_t> bytes = writer.Bytes();
  const StatusOr<GgufFile> file = ParseGguf(bytes);
  if (!file.ok()) return "does not parse: " + std::string(file.status().message());
  const StatusOr<TextFiles> text = GgufText(*file);
  return text.ok() ? "OK" : std::string(text.status().message());
}

std::string MessageOf(const auto& result) { return std::string(result.status().message()); }

// A folder of its own for one test, gone with it.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::path(testing::TempDir()) /
              fmt::format("gguf_test_{}_{}", getpid(),
                          testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

TEST(ParseGguf, ReadsMetadataAndTensors) {
  for (uint32_t version : {2, 3}) {
    Writer w = GoodFile();
    w.version = version;
    w.Tensor("q", {32, 2, 3}, kQ8_0Type, std::string(6 * 34, '\x7f'));
    w.Entry("signed", kI32, Writer::Raw<int32_t>(-7)).Entry("flag", kBoolean, "\x01");
    w.Entry("ints", kArr,
            Writer::Raw<uint32_t>(kI32) + Writer::Raw<uint64_t>(2) + Writer::Raw<int32_t>(-1) +
                Writer::Raw<int32_t>(5));
    const std::vector<uint8_t> bytes = w.Bytes();
    const StatusOr<GgufFile> file = ParseGguf(bytes);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(std::get<std::string>(file->metadata.at("general.name")), "tiny");
    EXPECT_EQ(std::get<int64_t>(file->metadata.at("signed")), -7);
    EXPECT_TRUE(std::get<bool>(file->metadata.at("flag")));
    EXPECT_THAT(std::get<std::vector<int64_t>>(file->metadata.at("ints")), ElementsAre(-1, 5));
    ASSERT_EQ(file->tensors.size(), 3u);
    const TensorView& embed = file->tensors.at("token_embd.weight");
    EXPECT_EQ(embed.rows, 4);
    EXPECT_EQ(embed.cols, 32);
    EXPECT_EQ(std::string(embed.bytes.begin(), embed.bytes.end()), Floats(32 * 4));
    // Dimensions after the first are rows.
    const TensorView& quantised = file->tensors.at("q");
    EXPECT_EQ(quantised.dtype, DType::kQ8_0);
    EXPECT_EQ(quantised.rows, 6);
    EXPECT_EQ(quantised.bytes.size(), 6u * 34);
  }
}

TEST(ParseGguf, RefusesOtherMagicAndVersions) {
  Writer w = GoodFile();
  w.magic = 0x47475546;
  EXPECT_THAT(ErrorOf(w), HasSubstr("magic"));
  for (uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    w = GoodFile();
    w.version = version;
    EXPECT_THAT(ErrorOf(w), HasSubstr(fmt::format("version {}", version)));
  }
}

TEST(ParseGguf, RefusesAFileTruncatedAnywhere) {
  const std::vector<uint8_t> whole = GoodFile().Bytes();
  ASSERT_TRUE(ParseGguf(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    // A buffer of exactly this size, so that a sanitizer sees any read past it.
    const std::vector<uint8_t> part(whole.begin(), whole.begin() + size);
    EXPECT_FALSE(ParseGguf(part).ok()) << "cut to " << size << " bytes";
  }
}

TEST(ParseGguf, SurvivesEveryByteFlipped) {
  const std::vector<uint8_t> whole = GoodFile().Bytes();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (uint8_t mask : {0x01, 0x80, 0xff}) {
      std::vector<uint8_t> damaged = whole;
      damaged[i] ^= mask;
      const StatusOr<GgufFile> file = ParseGguf(damaged);
      if (!file.ok()) continue;
      GgufConfig(*file).IgnoreError();
      GgufText(*file).IgnoreError();
    }
  }
}

TEST(ParseGguf, RefusesCountsThatLie) {
  for (uint64_t count : {uint64_t{3}, uint64_t{1000}, uint64_t{1} << 40, ~uint64_t{0}}) {
    Writer w = GoodFile();
    w.tensor_count = count;
    EXPECT_NE(ErrorOf(w), "OK") << count << " tensors";
    w = GoodFile();
    w.entry_count = count + 100;
    EXPECT_NE(ErrorOf(w), "OK") << count << " entries";
  }
  Writer w = GoodFile();
  w.tensor_count = ~uint64_t{0};
  EXPECT_THAT(ErrorOf(w), HasSubstr("claims 18446744073709551615 tensors"));
  for (uint32_t type : {0u, 4u, 6u, 8u, 12u}) {
    for (uint64_t count : {uint64_t{1} << 20, uint64_t{1} << 61, ~uint64_t{0}}) {
      w = GoodFile();
      w.Entry("lie", kArr, Writer::Raw(type) + Writer::Raw(count));
      EXPECT_THAT(ErrorOf(w), AllOf(HasSubstr("'lie'"), HasSubstr("past the end")));
    }
  }
  w = GoodFile();
  w.Entry("long", kStr, Writer::Raw(~uint64_t{0}));
  EXPECT_THAT(ErrorOf(w), HasSubstr("'long' is cut off"));
}

TEST(ParseGguf, RefusesUnknownValueTypes) {
  Writer w = GoodFile();
  w.Entry("odd", 13, "");
  EXPECT_THAT(ErrorOf(w), AllOf(HasSubstr("'odd'"), HasSubstr("unknown value type 13")));
  for (uint32_t type : {uint32_t{kArr}, 13u, ~0u}) {
    w = GoodFile();
    w.Entry("odd", kArr, Writer::Raw(type) + Writer::Raw<uint64_t>(1));
    EXPECT_THAT(ErrorOf(w), AllOf(HasSubstr("'odd'"), HasSubstr("unknown element type")));
  }
}

TEST(ParseGguf, RefusesTensorsThatLie) {
  constexpr uint64_t kHuge = uint64_t{1} << 31;
  for (const std::vector<uint64_t>& dims : std::vector<std::vector<uint64_t>>{
           {}, {1, 1, 1, 1, 1}, {0}, {32, 0}, {kHuge}, {~uint64_t{0}}, {32, ~uint64_t{0}}}) {
    EXPECT_THAT(ErrorOf(GoodFile().Header("bad", dims, kF32Type, 0)),
                AllOf(HasSubstr("'bad'"), HasSubstr("dimension")));
  }
  const uint64_t big = kHuge - 1;
  EXPECT_THAT(ErrorOf(GoodFile().Header("bad", {big, big, big, big}, kF32Type, 0)),
              HasSubstr("'bad' is too large"));
  // The product of the rows fits, the size in bytes does not.
  EXPECT_THAT(ErrorOf(GoodFile().Header("bad", {big, big, 4}, kF32Type, 0)),
              HasSubstr("'bad' is too large"));
  EXPECT_THAT(ErrorOf(GoodFile().Header("bad", {32, 1 << 20}, kF32Type, 0)),
              HasSubstr("'bad' runs past the end"));
  for (uint64_t offset : {uint64_t{1} << 20, uint64_t{1} << 63, ~uint64_t{31}}) {
    EXPECT_THAT(ErrorOf(GoodFile().Header("bad", {32}, kF32Type, offset)),
                HasSubstr("'bad' runs past the end"));
  }
  EXPECT_THAT(ErrorOf(GoodFile().Header("bad", {32}, kF32Type, 4)),
              HasSubstr("'bad' is not aligned"));
  EXPECT_THAT(ErrorOf(GoodFile().Header("bad", {33, 2}, kQ8_0Type, 0)),
              AllOf(HasSubstr("'bad'"), HasSubstr("33"), HasSubstr("Q8_0")));
}

TEST(ParseGguf, NamesTensorAndTypeItDoesNotRun) {
  for (uint32_t type : {10u, 23u, 4u, 99u, ~0u}) {
    const std::vector<uint8_t> bytes = GoodFile().Header("odd", {256}, type, 0).Bytes();
    const StatusOr<GgufFile> file = ParseGguf(bytes);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(MessageOf(file),
                AllOf(HasSubstr("'odd'"), HasSubstr(fmt::format("type {};", type))));
  }
}

TEST(ParseGguf, RefusesDuplicates) {
  EXPECT_THAT(ErrorOf(GoodFile().Int("general.name", 1)),
              HasSubstr("metadata 'general.name' occurs twice"));
  EXPECT_THAT(ErrorOf(GoodFile().Header("output_norm.weight", {32}, kF32Type, 0)),
              HasSubstr("tensor 'output_norm.weight' occurs twice"));
}

TEST(ParseGguf, ChecksTheAlignmentKey) {
  for (uint32_t alignment : {0u, 3u, 48u, 1u << 21}) {
    EXPECT_THAT(ErrorOf(GoodFile().Int("general.alignment", alignment)),
                HasSubstr("general.alignment"));
  }
  EXPECT_THAT(ErrorOf(GoodFile().String("general.alignment", "32")),
              HasSubstr("general.alignment"));
  EXPECT_EQ(ErrorOf(GoodFile().Int("general.alignment", 32)), "OK");
}

TEST(GgufConfig, ReadsAndDefaults) {
  const std::vector<uint8_t> bytes = GoodFile().Bytes();
  const StatusOr<GgufFile> file = ParseGguf(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  const StatusOr<ModelConfig> config = GgufConfig(*file);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->name, "tiny");
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->vocab, 4);
  EXPECT_TRUE(config->interleaved_rope);
  EXPECT_EQ(config->rope.theta, 10000.0f);
  EXPECT_TRUE(config->rope.factors.empty());
  EXPECT_THAT(config->eos_ids, ElementsAre(2));
}

TEST(GgufConfig, NamesTheKeyAtFault) {
  for (const std::string key :
       {"general.architecture", "llama.block_count", "llama.embedding_length",
        "llama.attention.head_count", "llama.feed_forward_length", "llama.context_length",
        "llama.attention.layer_norm_rms_epsilon"}) {
    EXPECT_THAT(ConfigErrorOf(GoodFile().Without(key)), StartsWith(key));
    // A wrong type is no better than none.
    EXPECT_THAT(ConfigErrorOf(GoodFile().Without(key).Strings(key, {"x"})), StartsWith(key));
  }
  for (const std::string key : {"llama.block_count", "llama.embedding_length",
                                "llama.attention.head_count", "llama.attention.head_count_kv"}) {
    for (uint32_t value : {0u, ~0u}) {
      EXPECT_THAT(ConfigErrorOf(GoodFile().Without(key).Int(key, value)),
                  AllOf(StartsWith(key), HasSubstr("out of range")));
    }
  }
  EXPECT_THAT(
      ConfigErrorOf(
          GoodFile().Without("general.architecture").String("general.architecture", "rwkv")),
      AllOf(StartsWith("general.architecture"), HasSubstr("rwkv")));
  EXPECT_THAT(ConfigErrorOf(GoodFile().Int("llama.rope.dimension_count", 0)),
              HasSubstr("llama.rope.dimension_count"));
  EXPECT_THAT(ConfigErrorOf(GoodFile().Float("llama.rope.freq_base", -1.0f)),
              StartsWith("llama.rope.freq_base"));
  EXPECT_THAT(ConfigErrorOf(GoodFile().String("llama.rope.scaling.type", "spiral")),
              AllOf(StartsWith("llama.rope.scaling.type"), HasSubstr("spiral")));
  for (const char* type : {"linear", "yarn"}) {
    EXPECT_THAT(ConfigErrorOf(GoodFile().String("llama.rope.scaling.type", type)),
                StartsWith("llama.rope.scaling.factor"));
  }
  EXPECT_THAT(
      ConfigErrorOf(Writer(GoodFile()).Tensor("rope_freqs.weight", {7}, kF32Type, Floats(7))),
      HasSubstr("rope_freqs.weight"));
  EXPECT_THAT(
      ConfigErrorOf(
          GoodFile().Without("llama.attention.head_count").Int("llama.attention.head_count", 33)),
      StartsWith("llama.attention.key_length"));
  // Factor 0 would divide by zero.
  EXPECT_THAT(ConfigErrorOf(GoodFile().Tensor("rope_freqs.weight", {8}, kF32Type, Floats(8))),
              HasSubstr("not positive"));
}

TEST(GgufConfig, ReadsRopeFactors) {
  std::string factors;
  for (int i = 1; i <= 8; ++i) factors += Writer::Raw(static_cast<float>(i));
  std::vector<uint8_t> bytes =
      GoodFile().Tensor("rope_freqs.weight", {8}, kF32Type, factors).Bytes();
  StatusOr<ModelConfig> config = GgufConfig(*ParseGguf(bytes));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->rope.factors, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  bytes = GoodFile()
              .String("llama.rope.scaling.type", "linear")
              .Float("llama.rope.scaling.factor", 4.0f)
              .Bytes();
  config = GgufConfig(*ParseGguf(bytes));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(config->rope.factor, 4.0f);
}

TEST(GgufConfig, RefusesEndTokensOutsideTheVocabulary) {
  for (const std::string key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    EXPECT_THAT(ConfigErrorOf(GoodFile().Without(key).Int(key, 4)), StartsWith(key));
    EXPECT_THAT(ConfigErrorOf(GoodFile().Without(key).Entry(key, kI32, Writer::Raw<int32_t>(-2))),
                StartsWith(key));
  }
}

TEST(GgufText, ReadsTheVocabulary) {
  const std::vector<uint8_t> bytes = GoodFile().Bytes();
  const StatusOr<TextFiles> text = GgufText(*ParseGguf(bytes));
  ASSERT_TRUE(text.ok()) << text.status();
  ASSERT_TRUE(text->gguf_vocab.has_value());
  EXPECT_THAT(text->gguf_vocab->tokens, ElementsAre("<unk>", "<s>", "</s>", "a"));
  EXPECT_EQ(text->bos_token, "<s>");
  EXPECT_EQ(text->eos_token, "</s>");
  EXPECT_FALSE(text->gguf_vocab->add_bos.has_value());  // the file does not say
}

TEST(GgufText, RefusesIdsOutsideTheVocabulary) {
  for (const std::string key : {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                "tokenizer.ggml.unknown_token_id"}) {
    for (uint32_t id : {4u, 0x7fffffffu, ~0u}) {
      EXPECT_THAT(TextErrorOf(GoodFile().Without(key).Int(key, id)),
                  AllOf(StartsWith(key), HasSubstr("out of range")));
    }
  }
  EXPECT_THAT(
      TextErrorOf(GoodFile().Without("tokenizer.ggml.tokens").Strings("tokenizer.ggml.tokens", {})),
      StartsWith("tokenizer.ggml.bos_token_id"));
}

TEST(LoadGguf, LoadsASplitModel) {
  const Folder folder;
  GoodFile().Int("split.count", 2).Int("split.no", 0).Save(folder / "m-00001-of-00002.gguf");
  Writer second;
  second.Int("split.count", 2).Int("split.no", 1);
  second.Tensor("blk.0.attn_norm.weight", {32}, kF32Type, Floats(32));
  second.Save(folder / "m-00002-of-00002.gguf");
  const StatusOr<Checkpoint> checkpoint =
      LoadCheckpoint((folder / "m-00001-of-00002.gguf").string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensors.size(), 3u);
  EXPECT_EQ(checkpoint->files.size(), 2u);
  const TensorView* norm = checkpoint->Find("blk.0.attn_norm.weight");
  ASSERT_NE(norm, nullptr);
  EXPECT_EQ(std::string(norm->bytes.begin(), norm->bytes.end()), Floats(32));

  const StatusOr<Checkpoint> from_second = LoadGguf((folder / "m-00002-of-00002.gguf").string());
  EXPECT_THAT(MessageOf(from_second), HasSubstr("not the first file"));
}

TEST(LoadGguf, NamesTheSiblingThatIsMissingOrDamaged) {
  const Folder folder;
  const std::string first = (folder / "m-00001-of-00002.gguf").string();
  const std::string second = (folder / "m-00002-of-00002.gguf").string();
  GoodFile().Int("split.count", 2).Save(first);
  EXPECT_THAT(MessageOf(LoadGguf(first)), HasSubstr(second));
  std::ofstream(second) << "GGUF";
  EXPECT_THAT(MessageOf(LoadGguf(first)), HasSubstr(second));
  Writer().Tensor("output_norm.weight", {32}, kF32Type, Floats(32)).Save(second);
  EXPECT_THAT(MessageOf(LoadGguf(first)),
              AllOf(HasSubstr(second), HasSubstr("'output_norm.weight' occurs in two files")));

  const std::string misnamed = (folder / "m.gguf").string();
  GoodFile().Int("split.count", 2).Save(misnamed);
  EXPECT_THAT(MessageOf(LoadGguf(misnamed)),
              AllOf(StartsWith(misnamed), HasSubstr("NAME-00001-of-00002.gguf")));
}

TEST(LoadGguf, NamesTheFile) {
  const Folder folder;
  const std::string path = (folder / "m.gguf").string();
  EXPECT_THAT(MessageOf(LoadCheckpoint(path)), HasSubstr(path));
  std::ofstream(path) << "";
  EXPECT_THAT(MessageOf(LoadCheckpoint(path)), HasSubstr(path));
  GoodFile().Without("llama.block_count").Save(path);
  EXPECT_THAT(MessageOf(LoadCheckpoint(path)),
              AllOf(StartsWith(path), HasSubstr("llama.block_count")));
}

TEST(WeightsFingerprint, TellsWeightsApart) {
  const Folder folder;
  const auto fingerprint = [&](const Writer& writer, const std::string& name) {
    writer.Save(folder / name);
    const StatusOr<Checkpoint> checkpoint = LoadGguf((folder / name).string());
    return checkpoint.ok() ? WeightsFingerprint(*checkpoint) : checkpoint.status().ToString();
  };
  const std::string base = fingerprint(GoodFile(), "a.gguf");
  EXPECT_EQ(base.size(), 32u);
  EXPECT_EQ(fingerprint(GoodFile(), "b.gguf"), base);
  EXPECT_NE(fingerprint(GoodFile().Tensor("x", {32}, kF32Type, Floats(32)), "c.gguf"), base);
}

}  // namespace
}  // namespace kvasir::model
