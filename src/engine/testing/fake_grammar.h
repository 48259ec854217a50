// A grammar for tests: what may and what must come next is a made-up function of the tokens taken,
// so that any token out of place changes all that follow.
#pragma once

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "grammar/matcher.h"

namespace kvasir::engine {

struct FakeGrammarOptions {
  int32_t vocab_size = 64;
  TokenId end_id = 0;
  int32_t length = 30;  // tokens of the longest output
  uint64_t seed = 1;
  int32_t fails_at = -1;  // tokens after which the next mask is an error
};

class FakeGrammar final : public grammar::Grammar {
 public:
  explicit FakeGrammar(FakeGrammarOptions options) : options_(options) {}
  std::unique_ptr<grammar::Matcher> NewMatcher() const override {
    return std::make_unique<FakeMatcher>(options_);
  }

  // Whether an output, without its end token, is one that the grammar gives so far.
  bool Accepts(absl::Span<const TokenId> ids) const {
    FakeMatcher matcher(options_);
    std::vector<TokenId> forced;
    for (const TokenId id : ids) {
      if (forced.empty()) forced = *matcher.Forced();
      if (!forced.empty()) {
        if (forced.front() != id) return false;
        forced.erase(forced.begin());
      } else if (!matcher.Allowed(id)) {
        return false;
      }
      if (!matcher.Consume(id).ok()) return false;
    }
    return true;
  }

 private:
  class FakeMatcher final : public grammar::Matcher {
   public:
    explicit FakeMatcher(FakeGrammarOptions options) : options_(options) {
      states_.push_back(options.seed);
    }

    std::unique_ptr<grammar::Matcher> Clone() const override {
      return std::make_unique<FakeMatcher>(*this);
    }

    StatusOr<std::vector<TokenId>> Forced() override {
      std::vector<TokenId> forced;
      if (ended() || Random(1) % 3 != 0) return forced;
      const size_t count = std::min<size_t>(1 + Random(2) % 4, Left());
      for (size_t i = 0; i < count; ++i) forced.push_back(Token(10 + i));
      return forced;
    }

    Status FillMask(absl::Span<uint32_t> mask) override {
      if (Taken() == options_.fails_at) return absl::InvalidArgumentError("constraint: too much");
      std::fill(mask.begin(), mask.end(), 0u);
      for (TokenId id = 0; id < options_.vocab_size; ++id) {
        if (Allowed(id)) mask[id / 32] |= 1u << (id % 32);
      }
      return absl::OkStatus();
    }

    bool Allowed(TokenId id) const {
      if (ended()) return id == options_.end_id;
      if (id == options_.end_id) return Random(3) % 8 == 0;
      return id == Token(4) || Random(100 + id) % 2 == 0;
    }

    Status Consume(TokenId id) override {
      states_.push_back(Mix(states_.back() + 1 + static_cast<uint64_t>(id)));
      return absl::OkStatus();
    }

    Status Rollback(int32_t tokens) override {
      states_.resize(states_.size() - tokens);
      return absl::OkStatus();
    }

    bool ended() const override { return Taken() >= options_.length; }

   private:
    static uint64_t Mix(uint64_t x) {
      x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
      x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
      return x ^ (x >> 31);
    }
    uint64_t Random(uint64_t stream) const { return Mix(states_.back() * 31 + stream) >> 8; }
    TokenId Token(uint64_t stream) const {
      return static_cast<TokenId>(1 + Random(stream) % (options_.vocab_size - 1));
    }
    int32_t Taken() const { return static_cast<int32_t>(states_.size()) - 1; }
    size_t Left() const { return static_cast<size_t>(options_.length - Taken()); }

    FakeGrammarOptions options_;
    std::vector<uint64_t> states_;
  };

  const FakeGrammarOptions options_;
};

}  // namespace kvasir::engine
