// Incremental detokenization of one choice's stream, and stop strings over it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace kvasir::text {

// Not thread-safe; one a stream.
class Detokenizer {
 public:
  // `tokenizer` must outlive this. `skip_special` drops control tokens from the text.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special);

  // The text that `id` completes: whole UTF-8 sequences only, so it may be empty and may hold the
  // characters of earlier tokens. The pieces of a stream, joined with Flush(), are the Decode()
  // of its ids.
  std::string Add(TokenId id);

  // What is still held back, with U+FFFD in the place of a broken sequence.
  std::string Flush();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::vector<TokenId> ids_;  // of the window that is decoded again
  size_t prefix_ = 0;         // tokens of the window whose text is already out
  std::string emitted_;       // text of those tokens
};

// Finds the first of several stop strings in a stream of text, wherever the pieces are cut.
// Not thread-safe; one a stream.
class StopMatcher {
 public:
  // With `include_stop` the stop string itself is part of the text.
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Result {
    std::string text;                  // safe to send: can't be the beginning of a stop string
    std::optional<std::string> match;  // the stop string that ended the stream
  };
  // After a match every further call returns nothing.
  Result Add(std::string_view piece);
  // The text held back, at the end of a stream without a match.
  std::string Flush();

 private:
  std::vector<std::string> stops_;
  bool include_stop_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace kvasir::text
