// One choice's way from token events to text: incremental detokenization, stop strings, reasoning
// and tool calls, the reason it ended. Pure: no threads, no clock.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/token_event.h"
#include "text/detokenizer.h"
#include "text/output_parser.h"
#include "text/tokenizer.h"

namespace kvasir::api {

// A tool call, or a piece of one: then only the first has an id and a name.
struct ToolCallPiece {
  int32_t index = 0;
  std::string id;
  std::string name;
  std::string arguments;  // JSON
};

// What one event adds to a choice, or, summed up, the whole choice.
struct ChoiceDelta {
  std::string text;       // whole UTF-8 sequences; without what the fields below hold
  std::string reasoning;  // likewise
  std::vector<ToolCallPiece> tool_calls;
  int32_t reasoning_tokens = 0;  // of `tokens`: those in the reasoning, and those of its marks
  std::vector<TokenOut> tokens;  // an end token and the tokens of a stop string are among them
  std::string finish_reason;     // empty while the choice goes on; "stop", "length", "tool_calls"
  // What stopped it: a stop string, a stop token id, or nothing (an end token of the model).
  std::variant<std::monostate, TokenId, std::string> stop_reason;
  bool cancel_engine = false;  // a stop string matched while the engine was still at work

  void AddCall(ToolCallPiece piece);  // joined to the last one, if it is of the same call
  void Append(ChoiceDelta next);
};

struct ChoiceOptions {
  const text::Tokenizer* tokenizer = nullptr;  // null: no text at all; must outlive the stream
  std::vector<std::string> stop;
  bool include_stop = false;  // the stop string or stop token is part of the text
  bool skip_special_tokens = true;
  bool continues_prompt = false;  // the text goes on from the prompt's: its first space stays
  int32_t min_tokens = 0;         // stop strings count only in text after this many tokens
  std::vector<TokenId> stop_token_ids;
  text::OutputFormat format;                                         // of reasoning and tool calls
  text::ReasoningState reasoning = text::ReasoningState::kNotBegun;  // where the prompt left off
  std::function<std::string()> new_call_id;                          // for a format with tool calls
};

// Not thread-safe.
class ChoiceStream {
 public:
  explicit ChoiceStream(const ChoiceOptions& options);

  // Takes an event that is no error. After the choice has finished, nothing is added.
  ChoiceDelta Add(const TokenEvent& event);

  bool finished() const { return finished_; }

 private:
  void AddToken(const TokenOut& token, bool is_text, ChoiceDelta* delta);
  void AddText(std::string_view piece, ChoiceDelta* delta);
  void FinishParser(ChoiceDelta* delta);
  void AddOutput(std::string_view text, ChoiceDelta* delta);
  void AddParsed(text::ParsedOutput parsed, ChoiceDelta* delta);
  void Finish(const TokenEvent& event, ChoiceDelta* delta);

  const ChoiceOptions& options_;
  std::unique_ptr<text::Detokenizer> detokenizer_;
  text::StopMatcher stop_matcher_;
  std::optional<text::OutputParser> parser_;  // none where all text is content
  int32_t tokens_ = 0;
  bool finished_ = false;
};

}  // namespace kvasir::api
