// Random outputs of constraints, for tests.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "grammar/compiler.h"
#include "text/testing/vocabularies.h"

namespace kvasir::grammar::testing {

// A tiny vocabulary and a compiler for it, whose model has some ids more than the tokenizer.
struct TinyModel {
  explicit TinyModel(const std::string& vocabulary, const CompilerOptions& options = {})
      : vocab(text::testing::TinyVocab(vocabulary)),
        tokenizer(text::testing::MakeTokenizer(vocab)),
        vocab_size(tokenizer->vocab_size() + 45) {
    auto made = MakeCompiler(*tokenizer, vocab_size, {vocab.eos_id, vocab.bos_id}, options);
    EXPECT_TRUE(made.ok()) << made.status();
    if (made.ok()) compiler = std::move(*made);
  }

  StatusOr<std::shared_ptr<const Grammar>> Compile(Constraint::Kind kind, std::string text) const {
    return compiler->Compile({kind, std::move(text)});
  }
  std::unique_ptr<Matcher> Start(Constraint::Kind kind, const std::string& text) const {
    const auto grammar = Compile(kind, text);
    EXPECT_TRUE(grammar.ok()) << text << ": " << grammar.status();
    return grammar.ok() ? (*grammar)->NewMatcher() : nullptr;
  }
  std::vector<uint32_t> Mask(Matcher& matcher) const {
    std::vector<uint32_t> mask(MaskWords(vocab_size), 0xdeadbeef);
    const Status filled = matcher.FillMask(absl::MakeSpan(mask));
    EXPECT_TRUE(filled.ok()) << filled;
    return mask;
  }
  std::vector<TokenId> Allowed(Matcher& matcher) const {
    const std::vector<uint32_t> mask = Mask(matcher);
    std::vector<TokenId> ids;
    for (TokenId id = 0; id < vocab_size; ++id) {
      if (Allows(mask, id)) ids.push_back(id);
    }
    return ids;
  }
  bool IsEos(TokenId id) const { return id == vocab.eos_id || id == vocab.bos_id; }
  std::string TextOf(const std::vector<TokenId>& ids) const {
    std::string text;
    for (const TokenId id : ids) text += tokenizer->TokenBytes(id);
    return text;
  }

  GgufVocab vocab;
  std::unique_ptr<text::Tokenizer> tokenizer;
  int32_t vocab_size;
  std::unique_ptr<Compiler> compiler;
};

inline std::vector<TokenId> Forced(Matcher& matcher) {
  const auto forced = matcher.Forced();
  EXPECT_TRUE(forced.ok()) << forced.status();
  return forced.value_or(std::vector<TokenId>{});
}

// Takes allowed tokens at random, ending as soon as the output may end once it has `soft_limit`
// tokens. Calls `at_each(taken)` before every token. The tokens without the end token; `*finished`
// says whether there was one.
template <typename AtEach>
std::vector<TokenId> RandomWalk(const TinyModel& model, Matcher& matcher, std::mt19937& random,
                                size_t soft_limit, size_t hard_limit, bool* finished,
                                AtEach at_each) {
  std::vector<TokenId> taken;
  *finished = false;
  while (taken.size() < hard_limit && !::testing::Test::HasFailure()) {
    at_each(taken);
    const std::vector<TokenId> allowed = model.Allowed(matcher);
    if (allowed.empty()) break;
    TokenId next = allowed[random() % allowed.size()];
    const bool may_end = model.IsEos(allowed.front()) || model.IsEos(allowed.back());
    if (may_end && taken.size() >= soft_limit) next = model.vocab.eos_id;
    const Status consumed = matcher.Consume(next);
    EXPECT_TRUE(consumed.ok()) << consumed;
    if (model.IsEos(next)) {
      *finished = true;
      break;
    }
    taken.push_back(next);
  }
  return taken;
}

}  // namespace kvasir::grammar::testing
