// Chat messages to the prompt text of a model, through its own Jinja template (minijinja in
// bridge/).
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/sampling_params.h"
#include "text/tokenizer.h"

namespace kvasir::text {

struct ChatInput {
  nlohmann::ordered_json messages;           // an array, as in the OpenAI API
  nlohmann::ordered_json tools;              // an array or null
  bool add_generation_prompt = true;
  nlohmann::ordered_json template_kwargs;    // an object or null: extra template variables
};

// A rendered prompt. Text that came out of a user's string and spells a control token is marked,
// so that it is tokenized as ordinary text.
class RenderedChat {
 public:
  struct Piece {
    std::string text;
    bool literal = false;  // came from a user's string and spells a control token
  };
  std::vector<Piece> pieces;

  std::string Text() const;  // all pieces joined: what the template alone would give

  // Control tokens only where the template wrote them.
  StatusOr<std::vector<TokenId>> Encode(const Tokenizer& tokenizer) const;
};

// Immutable and thread-safe.
class ChatTemplate {
 public:
  // `source` is Jinja. `bos_token` and `eos_token` are variables that templates use. The
  // tokenizer, which must outlive the template, says which texts are control tokens.
  static StatusOr<std::unique_ptr<ChatTemplate>> Create(std::string source, std::string bos_token,
                                                        std::string eos_token,
                                                        const Tokenizer& tokenizer);
  virtual ~ChatTemplate() = default;

  // An error of the template itself (raise_exception, a missing field, too much work) is
  // InvalidArgument with the template's message.
  virtual StatusOr<RenderedChat> Render(const ChatInput& input) const = 0;
};

}  // namespace kvasir::text
