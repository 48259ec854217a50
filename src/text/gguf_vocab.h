// A GGUF vocabulary, checked, in the form in which the bridge takes it.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/decoding.h"
#include "text/tokenizer.h"

namespace kvasir::text {

// Views into the GgufVocab that it was made of.
struct BpeModel {
  std::string spec_json;             // see kvb_tokenizer_from_bpe
  std::vector<std::string> renamed;  // texts of tokens without one, which the library can't hold
  std::vector<std::string_view> tokens;
  std::vector<std::pair<std::string_view, std::string_view>> merges;  // best first
  Decoding decoding;
};

// Unimplemented for an unknown model or pre-tokenizer, InvalidArgument for arrays that contradict
// each other; both name the field.
StatusOr<BpeModel> MakeBpeModel(const GgufVocab& vocab);

}  // namespace kvasir::text
