#include "loadgen/workload.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

namespace kvasir::loadgen {
namespace {

// What a random engine is for; the engines of two purposes never meet.
enum Stream : uint64_t { kConversation, kPrefix, kGap };

// Common words, one token each for most vocabularies.
constexpr std::array<std::string_view, 96> kWords = {
    "the",   "of",    "and",   "to",     "in",   "is",   "you",   "that",   "it",    "he",
    "was",   "for",   "on",    "are",    "as",   "with", "his",   "they",   "at",    "be",
    "this",  "have",  "from",  "or",     "one",  "had",  "by",    "word",   "but",   "not",
    "what",  "all",   "were",  "we",     "when", "your", "can",   "said",   "there", "use",
    "an",    "each",  "which", "she",    "do",   "how",  "their", "if",     "will",  "up",
    "other", "about", "out",   "many",   "then", "them", "these", "so",     "some",  "her",
    "would", "make",  "like",  "him",    "into", "time", "has",   "look",   "two",   "more",
    "write", "go",    "see",   "number", "no",   "way",  "could", "people", "my",    "than",
    "first", "water", "been",  "call",   "who",  "oil",  "its",   "now",    "find",  "long",
    "down",  "day",   "did",   "get",    "come", "made"};

// Standard distributions differ between libraries; a load should not.
uint64_t Below(std::mt19937_64& random, uint64_t end) { return random() % end; }

double UnitInterval(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;  // [0, 1)
}

}  // namespace

std::mt19937_64 Workload::Random(uint64_t stream, int64_t index) const {
  std::seed_seq seed{options_.seed, options_.seed >> 32, stream, static_cast<uint64_t>(index),
                     static_cast<uint64_t>(index) >> 32};
  return std::mt19937_64(seed);
}

int Workload::DrawLength(std::mt19937_64& random, int length) const {
  const double offset = options_.length_spread * (2 * UnitInterval(random) - 1);
  return std::max(1, static_cast<int>(std::lround(length * (1 + offset))));
}

Content Workload::DrawContent(std::mt19937_64& random, int length) const {
  Content content;
  if (options_.style == PromptStyle::kTokenIds) {
    const uint64_t range = uint64_t(options_.last_token_id - options_.first_token_id) + 1;
    for (int i = 0; i < length; ++i) {
      content.ids.push_back(options_.first_token_id + static_cast<TokenId>(Below(random, range)));
    }
    return content;
  }
  for (int i = 0; i < length; ++i) {
    if (i > 0) content.words += ' ';
    content.words += kWords[Below(random, kWords.size())];
  }
  return content;
}

Conversation Workload::Draw(int64_t index) const {
  std::mt19937_64 random = Random(kConversation, index);
  Conversation conversation;
  if (options_.shared_prefix_length > 0) {
    const auto group = static_cast<int64_t>(static_cast<uint64_t>(index) %
                                            uint64_t(options_.shared_prefix_groups));
    std::mt19937_64 of_group = Random(kPrefix, group);
    conversation.prefix = DrawContent(of_group, options_.shared_prefix_length);
  }
  for (int i = 0; i < options_.turns; ++i) {
    const int input_length = DrawLength(random, options_.input_length);
    const int output_length = DrawLength(random, options_.output_length);
    conversation.turns.push_back({DrawContent(random, input_length), output_length});
  }
  return conversation;
}

double Workload::DrawGap(int64_t index) const {
  std::mt19937_64 random = Random(kGap, index);
  return -std::log1p(-UnitInterval(random)) / options_.rate;
}

}  // namespace kvasir::loadgen
