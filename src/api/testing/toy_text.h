// A vocabulary of bytes with a few control tokens, and a ChatML template: text for tests, without a
// model.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir::api::testing {

// Ids 0 to 255 are the bytes; then <|end|> (256), <|im_start|> (257), <|im_end|> (258).
class ToyTokenizer final : public text::Tokenizer {
 public:
  static constexpr TokenId kEnd = 256;
  static constexpr TokenId kImStart = 257;
  static constexpr TokenId kImEnd = 258;

  StatusOr<std::vector<TokenId>> Encode(std::string_view text, bool parse_special) const override {
    std::vector<TokenId> ids;
    while (!text.empty()) {
      const TokenId special = parse_special ? SpecialAt(text) : -1;
      ids.push_back(special >= 0 ? special : static_cast<unsigned char>(text[0]));
      text.remove_prefix(special >= 0 ? specials_[special - kEnd].size() : 1);
    }
    return ids;
  }

  StatusOr<std::vector<TokenId>> EncodePieces(
      absl::Span<const text::TextPiece> pieces) const override {
    std::vector<TokenId> ids;
    for (const text::TextPiece& piece : pieces) {
      const auto more = *Encode(piece.text, !piece.literal);
      ids.insert(ids.end(), more.begin(), more.end());
    }
    return ids;
  }

  StatusOr<std::vector<TokenId>> EncodeContinuation(std::string_view text) const override {
    return Encode(text, /*parse_special=*/false);
  }

  std::string Decode(absl::Span<const TokenId> ids, bool skip_special) const override {
    std::string out;
    for (const TokenId id : ids) {
      if (!skip_special || !IsSpecial(id)) out += TokenBytes(id);
    }
    return out;
  }

  const std::vector<TokenId>& PromptPrefix() const override { return prefix; }
  int32_t vocab_size() const override { return kEnd + static_cast<int32_t>(specials_.size()); }
  bool IsSpecial(TokenId id) const override { return id >= kEnd && id < vocab_size(); }
  TokenId TokenToId(std::string_view token) const override { return SpecialAt(token); }
  std::string TokenBytes(TokenId id) const override {
    if (id < 0 || id >= vocab_size()) return "";
    return IsSpecial(id) ? specials_[id - kEnd] : std::string(1, static_cast<char>(id));
  }
  bool DropsFirstSpace() const override { return false; }
  const std::vector<std::string>& SpecialTexts() const override { return specials_; }

  // Adds a control token, which gets the next id.
  void AddSpecial(std::string text) { specials_.push_back(std::move(text)); }

  std::vector<TokenId> prefix;

 private:
  TokenId SpecialAt(std::string_view text) const {
    for (size_t i = 0; i < specials_.size(); ++i) {
      if (text.starts_with(specials_[i])) return kEnd + static_cast<TokenId>(i);
    }
    return -1;
  }

  std::vector<std::string> specials_ = {"<|end|>", "<|im_start|>", "<|im_end|>"};
};

class ToyChatTemplate final : public text::ChatTemplate {
 public:
  StatusOr<text::RenderedChat> Render(const text::ChatInput& input) const override {
    text::RenderedChat out;
    if (!input.tools.is_null()) out.pieces.push_back({"tools: " + input.tools.dump() + "\n"});
    for (const auto& message : input.messages) {
      if (message["content"] == "raise") return absl::InvalidArgumentError("the template refuses");
      out.pieces.push_back({"<|im_start|>" + message["role"].get<std::string>() + "\n"});
      const auto& content = message["content"];
      out.pieces.push_back(
          {content.is_string() ? content.get<std::string>() : message.dump(), true});
      out.pieces.push_back({"<|im_end|>\n"});
    }
    if (input.add_generation_prompt) out.pieces.push_back({"<|im_start|>assistant\n"});
    return out;
  }
};

}  // namespace kvasir::api::testing
