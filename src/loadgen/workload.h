// The prompts of a load: all lengths and contents, drawn from a seed.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/sampling_params.h"
#include "loadgen/options.h"

namespace kvasir::loadgen {

// Token ids or words, by the style of the load; the other is empty.
struct Content {
  std::vector<TokenId> ids;
  std::string words;  // parted by spaces
};

struct Turn {
  Content input;
  int output_length = 0;
};

struct Conversation {
  Content prefix;  // the same for all of a group
  std::vector<Turn> turns;
};

// A conversation depends on the options and its index alone, not on those drawn before it. Not
// thread-safe.
class Workload {
 public:
  explicit Workload(const Options& options) : options_(options) {}

  // Indices below 0 are warm-ups: they share no text with others but the prefix.
  Conversation Draw(int64_t index) const;

  // Seconds from one conversation's arrival to the next.
  double DrawGap(int64_t index) const;

 private:
  std::mt19937_64 Random(uint64_t stream, int64_t index) const;
  Content DrawContent(std::mt19937_64& random, int length) const;
  int DrawLength(std::mt19937_64& random, int length) const;

  Options options_;
};

}  // namespace kvasir::loadgen
