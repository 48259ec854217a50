// A model as its files state it: configuration, vocabulary and weight tensors, the same whether
// they came from GGUF or from a Hugging Face folder. Weights stay where they are: views into
// mapped files, which the checkpoint keeps alive.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/mapped_file.h"
#include "base/status.h"
#include "core/gguf_vocab.h"

namespace kvasir::model {

// A row-major matrix [rows, cols] or a vector (rows == 1).
struct TensorView {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  absl::Span<const uint8_t> bytes;  // exactly rows * cols elements
};

using TensorMap = std::map<std::string, TensorView, std::less<>>;

struct ModelConfig {
  std::string architecture;  // "llama" or "qwen2"
  std::string name;
  int32_t layers = 0;
  int32_t hidden = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t ffn = 0;
  int32_t vocab = 0;
  int32_t context_length = 0;
  float rms_eps = 1e-5f;
  float rope_theta = 10000.0f;
  // What each of the head_dim / 2 rotation frequencies is divided by (linear and llama3 scaling);
  // empty: nothing.
  std::vector<float> rope_factors;
  // The rows of Q and K lie in the order of the interleaved rotation (GGUF of llama), not of the
  // half-split one.
  bool interleaved_rope = false;
  int32_t sliding_window = 0;  // 0: none
  std::vector<int32_t> eos_ids;
};

// What is known of text processing; at most one of the two tokenizer sources is set.
struct TextFiles {
  std::optional<GgufVocab> gguf_vocab;
  std::optional<std::string> tokenizer_json;
  std::string chat_template;  // empty: none
  std::string bos_token;
  std::string eos_token;
};

// Immutable after loading; thread-safe.
struct Checkpoint {
  ModelConfig config;
  TextFiles text;
  // By GGUF's names ("blk.0.attn_q.weight"), whatever the source.
  TensorMap tensors;
  std::vector<std::unique_ptr<MappedFile>> files;

  const TensorView* Find(std::string_view name) const {
    const auto it = tensors.find(name);
    return it == tensors.end() ? nullptr : &it->second;
  }
};

// `path` is a GGUF file (of a split model: its first file) or a Hugging Face folder. Errors name
// the file and the field; nothing outside the files is ever read.
StatusOr<Checkpoint> LoadCheckpoint(const std::string& path);

// A digest of configuration and weights, 32 hexadecimal characters: equal models share KV.
std::string WeightsFingerprint(const Checkpoint& checkpoint);

}  // namespace kvasir::model
