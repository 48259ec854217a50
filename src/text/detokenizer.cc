#include "text/detokenizer.h"

#include <algorithm>
#include <utility>

namespace kvasir::text {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special, bool continues,
                         std::vector<TokenId> keep)
    : tokenizer_(tokenizer),
      skip_special_(skip_special),
      keep_(std::move(keep)),
      drop_space_(!continues && tokenizer.DropsFirstSpace()) {}

std::string Detokenizer::Add(TokenId id) {
  if (skip_special_ && tokenizer_.IsSpecial(id) &&
      std::find(keep_.begin(), keep_.end(), id) == keep_.end()) {
    return {};
  }
  const std::string token = tokenizer_.TokenBytes(id);
  std::string_view bytes = token;
  if (drop_space_ && !bytes.empty()) {
    if (bytes.front() == ' ') bytes.remove_prefix(1);
    drop_space_ = false;
  }
  return repair_.Add(bytes);
}

std::string Detokenizer::Flush() { return repair_.Flush(); }

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : include_stop_(include_stop) {
  for (std::string& stop : stops) {
    if (stop.empty()) continue;
    Automaton automaton{std::move(stop)};
    automaton.fallback.resize(automaton.stop.size());
    // The borders of the string are what it matches of itself, one byte late.
    for (size_t i = 1; i < automaton.stop.size(); ++i) {
      Advance(automaton, automaton.stop[i]);
      automaton.fallback[i] = automaton.state;
    }
    automaton.state = 0;
    automata_.push_back(std::move(automaton));
  }
}

void StopMatcher::Advance(Automaton& automaton, char byte) {
  size_t& state = automaton.state;
  while (state > 0 && automaton.stop[state] != byte) state = automaton.fallback[state - 1];
  if (automaton.stop[state] == byte) ++state;
}

StopMatcher::Result StopMatcher::Add(std::string_view piece) {
  if (matched_) return {};
  for (const char byte : piece) {
    held_ += byte;
    const Automaton* found = nullptr;
    for (Automaton& automaton : automata_) {
      Advance(automaton, byte);
      if (automaton.state < automaton.stop.size()) continue;
      if (found == nullptr || found->stop.size() < automaton.stop.size()) found = &automaton;
    }
    if (found != nullptr) {
      matched_ = true;
      if (!include_stop_) held_.resize(held_.size() - found->stop.size());
      return {std::exchange(held_, {}), found->stop};
    }
  }
  size_t keep = 0;
  for (const Automaton& automaton : automata_) keep = std::max(keep, automaton.state);
  Result result{held_.substr(0, held_.size() - keep)};
  held_.erase(0, held_.size() - keep);
  return result;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

}  // namespace kvasir::text
