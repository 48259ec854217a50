// Chat messages to the prompt text of a model, through its own Jinja template (minijinja in
// bridge/).
#pragma once

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/sampling_params.h"
#include "text/tokenizer.h"

namespace kvasir::text {

struct ChatInput {
  // An array of objects, as in the OpenAI API. Templates want the arguments of a tool call as an
  // object, so a string that holds one is parsed; content in parts is joined to a string where the
  // template knows only strings.
  nlohmann::ordered_json messages;
  nlohmann::ordered_json tools;  // an array or null
  bool add_generation_prompt = true;
  // The rendering ends with the content of the last message, so that the answer goes on from it.
  bool continue_final_message = false;
  nlohmann::ordered_json template_kwargs;  // an object or null: extra template variables
  std::optional<std::chrono::system_clock::time_point> now;  // for strftime_now; none: the clock's
};

// A rendered prompt. A literal piece came out of a user's string and spells a control token, or a
// part of one at the string's edge; it is tokenized as ordinary text.
class RenderedChat {
 public:
  using Piece = TextPiece;
  std::vector<Piece> pieces;

  std::string Text() const;  // all pieces joined: what the template alone would give

  // Control tokens only where the template wrote them.
  StatusOr<std::vector<TokenId>> Encode(const Tokenizer& tokenizer) const;
};

// Immutable and thread-safe.
class ChatTemplate {
 public:
  // `source` is Jinja; a syntax error is InvalidArgument with its line. `bos_token` and `eos_token`
  // are variables that templates use. The tokenizer says which texts are control tokens.
  static StatusOr<std::unique_ptr<ChatTemplate>> Create(std::string source, std::string bos_token,
                                                        std::string eos_token,
                                                        const Tokenizer& tokenizer);
  virtual ~ChatTemplate() = default;

  // An error of the template itself (raise_exception, a missing field, too much work) is
  // InvalidArgument with the template's message; so is input of the wrong shape, naming the field,
  // and a last message to continue that has no text or that the template does not show.
  virtual StatusOr<RenderedChat> Render(const ChatInput& input) const = 0;
};

}  // namespace kvasir::text
