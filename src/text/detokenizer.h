// Incremental detokenization of one choice's stream, and stop strings over it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"
#include "text/utf8.h"

namespace kvasir::text {

// Not thread-safe; one a stream.
class Detokenizer {
 public:
  // `tokenizer` must outlive this. `skip_special` drops control tokens from the text, except those
  // of `keep`. With `continues`, the stream goes on from a text before it, so that its first space
  // stays.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special, bool continues = false,
              std::vector<TokenId> keep = {});

  // The text that `id` completes: whole UTF-8 sequences only, so it may be empty and may hold the
  // characters of earlier tokens. The pieces of a stream, joined with Flush(), are the Decode()
  // of its ids (with `continues`: with the first space). Costs no more for a longer stream.
  std::string Add(TokenId id);

  // What is still held back, with U+FFFD in the place of a broken sequence.
  std::string Flush();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::vector<TokenId> keep_;
  bool drop_space_;  // the next token begins the text, and a space there goes
  Utf8Repair repair_;
};

// Finds the first of several stop strings in a stream of text, wherever the pieces are cut: the one
// that is complete first, and of those that end together the longest. Linear in the text (Knuth,
// Morris and Pratt's automaton for each string).
// Not thread-safe; one a stream.
class StopMatcher {
 public:
  // With `include_stop` the stop string itself is part of the text. Empty stop strings are ignored.
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
  struct Automaton {
    std::string stop;
    std::vector<size_t> fallback;  // [i]: longest proper border of the first i + 1 bytes
    size_t state = 0;              // bytes of `stop` that the stream ends with
  };
  void Advance(Automaton& automaton, char byte);

  std::vector<Automaton> automata_;
  bool include_stop_;
  std::string held_;  // the end of the stream that may begin a stop string
  bool matched_ = false;
};

}  // namespace kvasir::text
