// Splits <think>...</think> off the beginning of an answer.
#pragma once

#include <string>
#include <string_view>

#include "text/marker_matcher.h"
#include "text/output_format.h"

namespace kvasir::text {

// Not thread-safe; one a stream. What it gives does not depend on how the text is cut; text is held
// back only while it may be a tag or the space beside one. That space is dropped.
class ReasoningSplitter {
 public:
  // `state` is where the prompt left off (StateAtEnd): text is reasoning from the start only if the
  // prompt opened it.
  explicit ReasoningSplitter(ReasoningState state);

  struct Output {
    std::string reasoning;
    std::string content;
  };
  Output Add(std::string_view text);
  Output Finish();

  bool inside() const { return state_ == State::kInsideStart || state_ == State::kInside; }

 private:
  enum class State { kStart, kInsideStart, kInside, kAfter, kContent };

  // Returns false when the byte is to be taken again, in the state that it led to.
  bool Take(char byte, Output* out);

  State state_;
  MarkerMatcher open_{kThinkOpen};
  MarkerMatcher close_{kThinkClose};
};

}  // namespace kvasir::text
