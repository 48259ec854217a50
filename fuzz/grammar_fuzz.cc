// Constraints of strangers: compiles arbitrary text, and walks what compiles.
#include <absl/types/span.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/compiler.h"
#include "grammar/spellings.h"
#include "views.h"

namespace kvasir::fuzz {
namespace {

constexpr TokenId kEnd = 259;
constexpr int32_t kVocab = kEnd + 3;  // some ids more than the tokenizer's

// Bytes, a few longer tokens, and an end token.
class ByteTokenizer final : public text::Tokenizer {
 public:
  StatusOr<std::vector<TokenId>> Encode(std::string_view text, bool) const override {
    std::vector<TokenId> ids;
    while (!text.empty()) {
      const TokenId longer = LongerAt(text);
      ids.push_back(longer >= 0 ? longer : static_cast<unsigned char>(text[0]));
      text.remove_prefix(longer >= 0 ? 2 : 1);
    }
    return ids;
  }
  StatusOr<std::vector<TokenId>> EncodeContinuation(std::string_view text) const override {
    return Encode(text, false);
  }
  StatusOr<std::vector<TokenId>> EncodePieces(absl::Span<const text::TextPiece>) const override {
    return std::vector<TokenId>();
  }
  const std::vector<TokenId>& PromptPrefix() const override { return prefix_; }
  std::string Decode(absl::Span<const TokenId>, bool) const override { return ""; }
  int32_t vocab_size() const override { return kEnd + 1; }
  bool IsSpecial(TokenId id) const override { return id == kEnd; }
  TokenId TokenToId(std::string_view) const override { return -1; }
  std::string TokenBytes(TokenId id) const override {
    if (id < 256) return std::string(1, static_cast<char>(id));
    return id == kEnd ? "<end>" : std::string(kLonger[id - 256]);
  }
  bool DropsFirstSpace() const override { return false; }
  const std::vector<std::string>& SpecialTexts() const override { return texts_; }

 private:
  static constexpr std::string_view kLonger[] = {"ab", "\": ", "\n "};

  static TokenId LongerAt(std::string_view text) {
    for (size_t i = 0; i < std::size(kLonger); ++i) {
      if (kLonger[i].size() == 2 && text.starts_with(kLonger[i])) {
        return 256 + static_cast<TokenId>(i);
      }
    }
    return -1;
  }

  std::vector<TokenId> prefix_;
  std::vector<std::string> texts_;
};

struct World {
  ByteTokenizer tokenizer;
  std::unique_ptr<grammar::Compiler> compiler;

  World() {
    grammar::CompilerOptions options;
    options.max_text_bytes = 1 << 12;
    options.timeout = std::chrono::seconds(10);
    options.cached_grammars = 1;
    compiler = *grammar::MakeCompiler(tokenizer, kVocab, {kEnd}, options);
  }
};

// The first byte says what the rest is.
StatusOr<Constraint> ConstraintOf(char kind, std::string text) {
  switch (kind) {
    case 'j':
      return Constraint{Constraint::Kind::kJsonSchema, std::move(text)};
    case 'r':
      return Constraint{Constraint::Kind::kRegex, std::move(text)};
    case 'g':
      return grammar::FromGrammar(text);
    default:
      return grammar::OneOf({text, "other"});
  }
}

// Takes an allowed token, the `choice`th and around. False where there is no going on.
bool Step(grammar::Matcher& matcher, size_t choice) {
  std::vector<uint32_t> mask(grammar::MaskWords(kVocab));
  if (!matcher.FillMask(absl::MakeSpan(mask)).ok()) return false;
  TokenId id = static_cast<TokenId>(choice % kVocab);
  for (int tried = 0; !grammar::Allows(mask, id); ++tried) {
    Require(tried < kVocab);  // a mask allows something
    id = (id + 1) % kVocab;
  }
  Require(id <= kEnd);
  if (matcher.ended()) Require(id == kEnd);
  return matcher.Consume(id).ok() && id != kEnd;
}

void Walk(const grammar::Grammar& grammar, std::string_view choices) {
  const auto matcher = grammar.NewMatcher();
  int32_t steps = 0;
  while (steps < 12 && Step(*matcher, static_cast<unsigned char>(choices[steps % choices.size()]) +
                                          static_cast<size_t>(steps) * 37)) {
    ++steps;
  }
  if (!matcher->Rollback(steps / 2).ok()) return;
  const auto forced = matcher->Forced();
  if (!forced.ok()) return;
  for (const TokenId id : *forced) Require(id >= 0 && id <= kEnd);
}

}  // namespace
}  // namespace kvasir::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  static const fuzz::World* world = new fuzz::World();
  if (size < 2) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto constraint = fuzz::ConstraintOf(static_cast<char>(data[0]), text);
  if (!constraint.ok()) return 0;
  const auto compiled = world->compiler->Compile(*constraint);
  if (compiled.ok()) fuzz::Walk(**compiled, text);
  return 0;
}
