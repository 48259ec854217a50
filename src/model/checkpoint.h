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
#include "model/config.h"
#include "ops/scaled_matrix.h"

namespace kvasir::model {

// Of each `stride` rows those of [begin, begin + width) lie for the interleaved rotation: row 2i of
// them goes to i, row 2i + 1 to i + width / 2 of the half-split one. Width 0: none.
struct InterleavedRows {
  int64_t stride = 0;
  int64_t begin = 0;
  int64_t width = 0;
};

// A row-major matrix [rows, cols] or a vector (rows == 1).
struct TensorView {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  // Exactly rows * cols elements, where they are dense; of a quantised matrix of several tensors
  // those of its integers or 8-bit floats.
  absl::Span<const uint8_t> bytes;
  // Of float types, from one element to the next; both 0: dense.
  int64_t row_stride = 0;
  int64_t col_stride = 0;
  InterleavedRows interleaved;
  // Of a quantised matrix of several tensors: where the others are (ops/packing.h).
  std::shared_ptr<const ops::ScaledMatrix> scaled = nullptr;
};

using TensorMap = std::map<std::string, TensorView, std::less<>>;

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
