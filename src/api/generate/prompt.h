// From what a client sent to the immutable Request that an engine takes: tokenizing, defaults,
// limits of the model, block hashes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/protocol/request.h"
#include "core/engine_client.h"
#include "core/request.h"
#include "grammar/compiler.h"
#include "text/chat_template.h"
#include "text/output_format.h"
#include "text/tokenizer.h"

namespace kvasir::api {

// The text side of the served model. Pointers are null where the model has none; what they point
// to is immutable and outlives the server.
struct ServedText {
  const text::Tokenizer* tokenizer = nullptr;
  const text::ChatTemplate* chat_template = nullptr;
  text::OutputFormat format = {};         // of chat answers
  grammar::Compiler* grammars = nullptr;  // thread-safe, and so not immutable
};

struct EncodedChat {
  std::vector<TokenId> ids;
  text::ReasoningState reasoning = text::ReasoningState::kNotBegun;  // where the prompt leaves off
};

// Control tokens only where the template wrote them.
StatusOr<EncodedChat> EncodeChat(const ServedText& text, const ChatPrompt& prompt);

// A raw prompt: control tokens spelled in the text become their ids. `field` names it in errors.
StatusOr<std::vector<TokenId>> EncodePrompt(const ServedText& text, const TextOrIds& prompt,
                                            bool add_special_tokens, const std::string& field);

// The prompt that asks for what stands between two texts; errors are of the field `suffix`.
StatusOr<std::vector<TokenId>> EncodeInfill(const ServedText& text, const std::string& before,
                                            const std::string& after);

// The token sequences that spell a word, at the beginning of a text and after a space.
StatusOr<std::vector<std::vector<TokenId>>> EncodeBadWords(const text::Tokenizer& tokenizer,
                                                           const std::vector<std::string>& words);

struct RequestContext {
  std::string id;
  std::string field;               // what the prompt is called in errors
  int32_t default_max_tokens = 0;  // when the client gave none; 0: all that the context leaves
  TimePoint arrival{};
  TimePoint deadline = TimePoint::max();
};

// Checks everything that needs the model. Each prompt of a batch becomes a Request of its own.
StatusOr<std::shared_ptr<const Request>> BuildRequest(const ModelInfo& model,
                                                      const GenerationOptions& options,
                                                      std::vector<TokenId> prompt_ids,
                                                      const RequestContext& context);

}  // namespace kvasir::api
