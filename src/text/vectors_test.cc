// Reference ids and renderings: the golden files of real models, and llama.cpp's vectors.
#include <gtest/gtest.h>

#include <iostream>
#include <set>

#include "text/chat_template.h"
#include "text/testing/vocabularies.h"
#include "text/tokenizer.h"

namespace kvasir::text {
namespace {

using nlohmann::ordered_json;
using testing::GgufFile;
namespace fs = std::filesystem;

constexpr char kQwenFile[] = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";

struct GoldenModel {
  const char* name;
  const char* variable;  // of the environment: the path of the model's GGUF file
  const char* file;      // its name in the cache folder
};

void PrintTo(const GoldenModel& model, std::ostream* out) { *out << model.name; }

class GoldenTest : public ::testing::TestWithParam<GoldenModel> {
 protected:
  void SetUp() override {
    const fs::path model = testing::ModelFile(GetParam().variable, GetParam().file);
    if (model.empty()) {
      GTEST_SKIP() << GetParam().variable << " names no model file, and the cache has none";
    }
    golden_ = testing::TestData() / "golden" / GetParam().name;
    if (!fs::exists(golden_)) golden_ = testing::SharedData() / "golden" / GetParam().name;
    if (!fs::exists(golden_)) GTEST_SKIP() << "no golden values at " << golden_;
    const GgufFile file(model);
    tokenizer_ = testing::MakeTokenizer(file.Vocab());
    ASSERT_NE(tokenizer_, nullptr);
    template_source_ = file.Text("tokenizer.chat_template");
  }

  fs::path golden_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string template_source_;
};

TEST_P(GoldenTest, TokenizesAsTheModelsOwnTokenizer) {
  int checked = 0;
  for (const auto& [file, field] :
       {std::pair("tokenizer.json", "ids"), std::pair("tokenizer_differ.json", "hf_tokenizers")}) {
    const ordered_json golden = testing::ReadJson(golden_ / file);
    for (const ordered_json& item : golden["items"]) {
      const std::string text = item["text"];
      const auto ids = tokenizer_->Encode(text, item["parse_special"]);
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(*ids, item[field].get<std::vector<TokenId>>()) << text;
      // The other file's texts are not in the form that the tokenizer normalizes to.
      if (std::string_view(field) == "ids") {
        EXPECT_EQ(tokenizer_->Decode(*ids, /*skip_special=*/false), text);
      }
      ++checked;
    }
  }
  EXPECT_GT(checked, 20);
}

TEST_P(GoldenTest, RendersChatsAsTheModelsOwnTemplate) {
  const auto chat_template = ChatTemplate::Create(template_source_, "", "", *tokenizer_);
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  int checked = 0;
  const ordered_json golden = testing::ReadJson(golden_ / "chat.json");
  for (const ordered_json& item : golden["items"]) {
    ChatInput input{.messages = item["messages"],
                    .add_generation_prompt = item["add_generation_prompt"]};
    if (item.contains("tools")) input.tools = item["tools"];
    const auto rendered = (*chat_template)->Render(input);
    ASSERT_TRUE(rendered.ok()) << rendered.status();
    EXPECT_EQ(rendered->Text(), item["rendered"].get<std::string>()) << item["name"];
    ++checked;
  }
  EXPECT_GE(checked, 6);
}

INSTANTIATE_TEST_SUITE_P(
    Models, GoldenTest,
    ::testing::Values(GoldenModel{"smollm2-135m-instruct", "KVASIR_SMOLLM2_GGUF",
                                  "SmolLM2-135M-Instruct.Q4_1.gguf"},
                      GoldenModel{"qwen2.5-coder-0.5b-instruct", "KVASIR_QWEN_MODEL", kQwenFile}),
    [](const auto& info) { return info.index == 0 ? "SmolLM2" : "Qwen"; });

// Texts between separator lines, and a line of ids for each.
struct Vectors {
  std::vector<std::string> texts;
  std::vector<std::vector<TokenId>> ids;
};

Vectors ReadVectors(const fs::path& vocab) {
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  Vectors vectors;
  const std::string input = testing::ReadFile(vocab.string() + ".inp");
  for (size_t begin = 0; begin < input.size();) {
    const size_t end = input.find(kSeparator, begin);
    if (end == std::string::npos) break;
    vectors.texts.push_back(input.substr(begin, end - begin));
    begin = end + kSeparator.size();
  }
  std::istringstream lines(testing::ReadFile(vocab.string() + ".out"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    std::vector<TokenId>& ids = vectors.ids.emplace_back();
    for (TokenId id; numbers >> id;) ids.push_back(id);
  }
  return vectors;
}

void CheckVectors(const Tokenizer& tokenizer, const fs::path& vocab) {
  const Vectors vectors = ReadVectors(vocab);
  ASSERT_GT(vectors.texts.size(), 40u);
  ASSERT_EQ(vectors.texts.size(), vectors.ids.size());
  for (size_t i = 0; i < vectors.texts.size(); ++i) {
    const auto ids = tokenizer.Encode(vectors.texts[i], /*parse_special=*/false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, vectors.ids[i])
        << vocab.filename() << " text " << i << ": " << vectors.texts[i];
  }
}

TEST(LlamaCppVectorsTest, EveryVocabularyOfASupportedTypeTokenizesAsTheReference) {
  const fs::path folder = testing::SharedData() / "tokenizers" / "llama.cpp-vocab";
  if (!fs::exists(folder)) GTEST_SKIP() << "no vocabularies at " << folder;
  std::set<fs::path> vocabs;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path path = entry.path();
    vocabs.insert(path.extension() == ".gguf" ? path : fs::path(path).replace_extension());
  }
  int checked = 0;
  for (const fs::path& vocab : vocabs) {
    if (!fs::exists(vocab) || !fs::exists(vocab.string() + ".inp")) {
      std::cout << "not checked: " << vocab.filename().string() << ": "
                << (fs::exists(vocab) ? "has no vectors" : "has no vocabulary file") << "\n";
      continue;
    }
    const auto tokenizer = Tokenizer::FromGguf(GgufFile(vocab).Vocab());
    if (!tokenizer.ok()) {
      EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kUnimplemented)
          << vocab << ": " << tokenizer.status();
      std::cout << "not checked: " << vocab.filename().string() << ": "
                << tokenizer.status().message() << "\n";
      continue;
    }
    CheckVectors(**tokenizer, vocab);
    ++checked;
  }
  EXPECT_GE(checked, 9);
}

// The vectors of Qwen 2 come without a vocabulary, but Qwen 2.5's has the same words.
TEST(LlamaCppVectorsTest, QwenModel) {
  const fs::path model = testing::ModelFile("KVASIR_QWEN_MODEL", kQwenFile);
  const fs::path vectors =
      testing::SharedData() / "tokenizers" / "llama.cpp-vocab" / "ggml-vocab-qwen2.gguf";
  if (model.empty() || !fs::exists(vectors.string() + ".inp")) GTEST_SKIP();
  const auto tokenizer = testing::MakeTokenizer(GgufFile(model).Vocab());
  ASSERT_NE(tokenizer, nullptr);
  CheckVectors(*tokenizer, vectors);
}

}  // namespace
}  // namespace kvasir::text
