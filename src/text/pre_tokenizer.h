// How the BPE vocabularies of GGUF files split a text into words before merging.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/status.h"

namespace kvasir::text {

struct PreTokenizer {
  nlohmann::json normalizer;     // as in a tokenizer.json; null: none
  nlohmann::json pre_tokenizer;  // as in a tokenizer.json
  // A word that is a token as it stands is not built by merges.
  bool ignore_merges = false;
};

// By the value of tokenizer.ggml.pre. Unimplemented, naming it, for any other.
StatusOr<PreTokenizer> FindPreTokenizer(std::string_view pre);

}  // namespace kvasir::text
