// For tests: keeps the events of one request.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/check.h"
#include "core/engine_client.h"

namespace kvasir::engine {

// Events come on one thread; they may be read once the request has finished.
class RecordingSink final : public TokenSink {
 public:
  struct Choice {
    std::vector<TokenId> tokens;
    std::vector<TokenOut> outs;
    std::optional<FinishReason> finish;
    Status error;
    int32_t cached_tokens = 0;
  };

  void OnEvent(TokenEvent event) override {
    Choice& choice = choices[event.choice];
    KVASIR_CHECK(!choice.finish, "no event comes after the finish");
    for (const TokenOut& out : event.tokens) {
      choice.tokens.push_back(out.id);
      choice.outs.push_back(out);
    }
    prompt.insert(prompt.end(), event.prompt.begin(), event.prompt.end());
    if (!event.embedding.empty()) embedding = event.embedding;
    choice.finish = event.finish;
    choice.error = event.error;
    choice.cached_tokens = event.cached_tokens;
  }

  // All choices that had an event are finished, and there are `n`.
  bool Finished(int32_t n) const {
    if (choices.size() != static_cast<size_t>(n)) return false;
    for (const auto& [index, choice] : choices) {
      if (!choice.finish) return false;
    }
    return true;
  }

  std::map<int32_t, Choice> choices;
  std::vector<TokenOut> prompt;
  std::vector<float> embedding;
};

}  // namespace kvasir::engine
