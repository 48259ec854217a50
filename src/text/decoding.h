// From the name of a token in its vocabulary to the bytes that it stands for.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::text {

// A value.
struct Decoding {
  enum Alphabet {
    kByteLevel,      // GPT-2's: one printable character for each byte
    kSentencePiece,  // U+2581 for a space, <0x0A> for a byte
  };
  Alphabet alphabet = kByteLevel;
  bool drops_first_space = false;

  // A name that the alphabet can't spell stands for itself.
  std::string BytesOf(std::string_view name) const;
};

// Of the "decoder" of a tokenizer.json. Unimplemented, naming it, for one that is not a function of
// each token alone.
StatusOr<Decoding> ParseDecoding(std::string_view decoder_json);

}  // namespace kvasir::text
