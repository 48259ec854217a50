// Vocabularies for tests: the tiny ones of tests/data/text, and those of GGUF files.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace kvasir::text::testing {

inline std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream content;
  content << in.rdbuf();
  return content.str();
}

inline nlohmann::ordered_json ReadJson(const std::filesystem::path& path) {
  return nlohmann::ordered_json::parse(ReadFile(path));
}

inline std::filesystem::path TestData() { return KVASIR_TEST_DATA; }

// "tiny_bpe" or "tiny_spm".
inline GgufVocab TinyVocab(const std::string& name) {
  const nlohmann::ordered_json json = ReadJson(TestData() / "text" / (name + ".json"));
  GgufVocab vocab;
  vocab.model = json["model"];
  vocab.pre = json["pre"];
  vocab.tokens = json["tokens"].get<std::vector<std::string>>();
  vocab.types = json["types"].get<std::vector<int32_t>>();
  vocab.scores = json.value("scores", std::vector<float>());
  vocab.merges = json["merges"].get<std::vector<std::string>>();
  vocab.bos_id = json["bos_id"];
  vocab.eos_id = json["eos_id"];
  vocab.unk_id = json.value("unk_id", -1);
  vocab.add_bos = json.value("add_bos", false);
  return vocab;
}

inline std::unique_ptr<Tokenizer> MakeTokenizer(const GgufVocab& vocab) {
  StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromGguf(vocab);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? std::move(tokenizer).value() : nullptr;
}

inline std::unique_ptr<Tokenizer> TinyTokenizer(const std::string& name) {
  return MakeTokenizer(TinyVocab(name));
}

// Just enough of GGUF to take the vocabulary and the template out of a trusted file.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path) : in_(path, std::ios::binary) {
    Read<uint64_t>();  // magic and version
    Read<uint64_t>();  // tensors
    const uint64_t entries = Read<uint64_t>();
    for (uint64_t i = 0; i < entries && in_; ++i) {
      std::string key = ReadString();
      const uint32_t type = Read<uint32_t>();
      ReadValue(std::move(key), type);
    }
  }

  std::string Text(const std::string& key) const { return At(strings_, key, {""}).front(); }

  GgufVocab Vocab() const {
    GgufVocab vocab;
    vocab.model = Text("tokenizer.ggml.model");
    vocab.pre = Text("tokenizer.ggml.pre");
    vocab.tokens = At(strings_, "tokenizer.ggml.tokens", {});
    for (const double v : At(numbers_, "tokenizer.ggml.scores", {})) {
      vocab.scores.push_back(static_cast<float>(v));
    }
    for (const double v : At(numbers_, "tokenizer.ggml.token_type", {})) {
      vocab.types.push_back(static_cast<int32_t>(v));
    }
    vocab.merges = At(strings_, "tokenizer.ggml.merges", {});
    vocab.bos_id = Id("tokenizer.ggml.bos_token_id");
    vocab.eos_id = Id("tokenizer.ggml.eos_token_id");
    vocab.unk_id = Id("tokenizer.ggml.unknown_token_id");
    vocab.add_space_prefix = Number("tokenizer.ggml.add_space_prefix", 1) != 0;
    vocab.add_bos = Number("tokenizer.ggml.add_bos_token", 0) != 0;
    return vocab;
  }

 private:
  template <typename T>
  T Read() {
    T value{};
    in_.read(reinterpret_cast<char*>(&value), sizeof(value));
    return value;
  }
  std::string ReadString() {
    std::string text(Read<uint64_t>(), '\0');
    in_.read(text.data(), static_cast<std::streamsize>(text.size()));
    return text;
  }
  double ReadNumber(uint32_t type) {
    switch (type) {
      case 0:
      case 7:
        return Read<uint8_t>();
      case 1:
        return Read<int8_t>();
      case 2:
        return Read<uint16_t>();
      case 3:
        return Read<int16_t>();
      case 4:
        return Read<uint32_t>();
      case 5:
        return Read<int32_t>();
      case 6:
        return Read<float>();
      case 10:
        return static_cast<double>(Read<uint64_t>());
      case 11:
        return static_cast<double>(Read<int64_t>());
      default:
        return Read<double>();
    }
  }
  void ReadValue(std::string key, uint32_t type) {
    uint64_t count = 1;
    if (type == 9) {
      type = Read<uint32_t>();
      count = Read<uint64_t>();
    }
    for (uint64_t i = 0; i < count; ++i) {
      if (type == 8) {
        strings_[key].push_back(ReadString());
      } else {
        numbers_[key].push_back(ReadNumber(type));
      }
    }
  }
  template <typename T>
  static std::vector<T> At(const std::map<std::string, std::vector<T>>& values,
                           const std::string& key, std::vector<T> otherwise) {
    const auto it = values.find(key);
    return it == values.end() ? otherwise : it->second;
  }
  double Number(const std::string& key, double otherwise) const {
    return At(numbers_, key, {otherwise}).front();
  }
  TokenId Id(const std::string& key) const { return static_cast<TokenId>(Number(key, -1)); }

  std::ifstream in_;
  std::map<std::string, std::vector<std::string>> strings_;
  std::map<std::string, std::vector<double>> numbers_;
};

// Reference vocabularies and vectors outside the repository: $KVASIR_SHARED, else ../shared beside
// the checkout. It need not exist.
inline std::filesystem::path SharedData() {
  const char* from_environment = std::getenv("KVASIR_SHARED");
  if (from_environment != nullptr) return from_environment;
  return TestData().parent_path().parent_path().parent_path() / "shared";
}

// A model file: the one that an environment variable names, else `name` in the cache folder, where
// `kvasir pull` and scripts/fetch_default_model.sh put models. Empty when there is none.
inline std::filesystem::path ModelFile(const char* variable, const char* name) {
  const auto from_environment = [](const char* key) {
    const char* value = std::getenv(key);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  if (const auto path = from_environment(variable); !path.empty()) return path;
  std::filesystem::path cache = from_environment("KVASIR_CACHE");
  if (cache.empty()) {
    const std::filesystem::path base = from_environment("XDG_CACHE_HOME");
    cache = (base.empty() ? from_environment("HOME") / ".cache" : base) / "kvasir";
  }
  const std::filesystem::path path = cache / "models" / name;
  return std::filesystem::exists(path) ? path : "";
}

}  // namespace kvasir::text::testing
