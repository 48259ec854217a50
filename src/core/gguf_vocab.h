// The vocabulary of a GGUF file: a value between the reader of the file and the tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/sampling_params.h"

namespace kvasir {

// A vocabulary as a GGUF file states it, which a reader of the file hands to a
// tokenizer.
struct GgufVocab {
  std::string model;  // tokenizer.ggml.model: "gpt2" or "llama"
  std::string pre;    // tokenizer.ggml.pre
  std::vector<std::string> tokens;
  std::vector<float> scores;        // "llama" only
  std::vector<int32_t> types;       // 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte
  std::vector<std::string> merges;  // "gpt2" only, "left right"
  TokenId bos_id = -1;              // -1: none
  TokenId eos_id = -1;
  TokenId unk_id = -1;
  // Not set: the file does not say, and the kind of the vocabulary decides.
  std::optional<bool> add_bos;
  bool add_eos = false;
  bool add_space_prefix = true;  // "llama" only
};

}  // namespace kvasir
