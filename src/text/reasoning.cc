#include "text/reasoning.h"

namespace kvasir::text {
namespace {

using Step = MarkerMatcher::Step;

}  // namespace

ReasoningSplitter::ReasoningSplitter(ReasoningState state)
    : state_(state == ReasoningState::kNotBegun ? State::kStart
             : state == ReasoningState::kOpen   ? State::kInsideStart
                                                : State::kContent) {}

bool ReasoningSplitter::Take(char byte, Output* out) {
  switch (state_) {
    case State::kStart:
      if (const Step step = open_.Add(byte); step != Step::kMiss) {
        if (step == Step::kFound) state_ = State::kInsideStart;
        return true;
      }
      out->content += open_.Take();
      state_ = State::kContent;
      return false;
    case State::kInsideStart:
      if (IsJsonSpace(byte)) return true;
      state_ = State::kInside;
      return false;
    case State::kInside: {
      const Step step = close_.Add(byte);
      if (step == Step::kFound) state_ = State::kAfter;
      if (step != Step::kMiss) return true;
      if (!close_.empty()) {
        out->reasoning += close_.Take();
        return false;
      }
      out->reasoning += byte;
      return true;
    }
    case State::kAfter:
      if (IsJsonSpace(byte)) return true;
      state_ = State::kContent;
      return false;
    case State::kContent:
      out->content += byte;
      return true;
  }
  return true;
}

ReasoningSplitter::Output ReasoningSplitter::Add(std::string_view text) {
  Output out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (state_ == State::kContent) {
      out.content += text.substr(i);
      break;
    }
    while (!Take(text[i], &out)) {
    }
  }
  return out;
}

ReasoningSplitter::Output ReasoningSplitter::Finish() {
  Output out;
  if (state_ == State::kStart) out.content = open_.Take();
  if (state_ == State::kInside && !close_.only_space()) out.reasoning = close_.Take();
  return out;
}

}  // namespace kvasir::text
