// Text to token ids and back, over the Hugging Face tokenizers library (bridge/).
#pragma once

#include <absl/types/span.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/gguf_vocab.h"
#include "core/sampling_params.h"

namespace kvasir::text {

// Whether a GGUF file without tokenizer.ggml.add_bos_token means that prompts begin with BOS.
bool DefaultAddBos(std::string_view model, std::string_view pre);

// A part of a text. Control tokens are not looked for in a literal one.
struct TextPiece {
  std::string text;
  bool literal = false;

  friend bool operator==(const TextPiece&, const TextPiece&) = default;
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  // An unknown model or pre-tokenizer is Unimplemented, arrays that contradict each other are
  // InvalidArgument; both name the field.
  static StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const GgufVocab& vocab);
  // `tokenizer_json` is the content of a tokenizer.json file.
  static StatusOr<std::unique_ptr<Tokenizer>> FromHuggingFace(std::string_view tokenizer_json);

  virtual ~Tokenizer() = default;

  // The ids of valid UTF-8 `text`, without BOS or EOS. With `parse_special`, control tokens
  // written in the text become their ids; without, they are ordinary text. User-defined tokens
  // are tokens either way.
  virtual StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                                bool parse_special) const = 0;

  // Encode of the joined pieces with parse_special, except that a control token counts only where
  // one piece that is not literal holds it whole. Text between two control tokens is tokenized as
  // one, wherever its pieces are cut.
  virtual StatusOr<std::vector<TokenId>> EncodePieces(absl::Span<const TextPiece> pieces) const = 0;

  // Encode of text that goes on after other text, control tokens being ordinary text: no space is
  // put before it.
  virtual StatusOr<std::vector<TokenId>> EncodeContinuation(std::string_view text) const = 0;

  // The ids that a prompt of plain text begins with: BOS, where the model wants it.
  virtual const std::vector<TokenId>& PromptPrefix() const = 0;

  // The text of `ids`; bytes that are no valid UTF-8 become U+FFFD. Unknown ids are skipped.
  virtual std::string Decode(absl::Span<const TokenId> ids, bool skip_special) const = 0;

  virtual int32_t vocab_size() const = 0;
  virtual bool IsSpecial(TokenId id) const = 0;  // a control token
  // -1 when the vocabulary has no such token.
  virtual TokenId TokenToId(std::string_view token) const = 0;
  // The exact bytes that the token stands for (" Hello" -> 20 48 65 6c 6c 6f), possibly a part of
  // a UTF-8 sequence; for control tokens their name. Empty for an unknown id.
  virtual std::string TokenBytes(TokenId id) const = 0;
  // Whether Decode drops a space at the beginning of its text, because Encode put one there.
  virtual bool DropsFirstSpace() const = 0;
  // Texts of all control tokens, longest first: what a user may not smuggle into a prompt.
  virtual const std::vector<std::string>& SpecialTexts() const = 0;
};

}  // namespace kvasir::text
