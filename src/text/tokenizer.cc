#include "text/tokenizer.h"

#include <fmt/format.h>

#include <utility>

#include "text/bridge.h"
#include "text/decoding.h"
#include "text/detokenizer.h"
#include "text/gguf_vocab.h"
#include "text/token_table.h"

namespace kvasir::text {
namespace {

Status BadInput(const BridgeString& error) { return absl::InvalidArgumentError(error.text()); }

// Names of the tokens to what they stand for.
StatusOr<TokenTable> ReadTable(const kvb_tokenizer* handle, const Decoding& decoding) {
  struct Reader {
    const Decoding& decoding;
    std::vector<TokenTable::Entry> entries;
  } reader{decoding, {}};
  const auto visit = [](void* context, uint32_t id, kvb_str name, bool special) {
    Reader& to = *static_cast<Reader*>(context);
    if (id >= to.entries.size()) to.entries.resize(id + 1);
    const std::string_view text = FromBridge(name);
    to.entries[id] = {special ? std::string(text) : to.decoding.BytesOf(text), special};
  };
  BridgeString error;
  if (!kvb_tokenizer_visit_tokens(handle, visit, &reader, error.out())) return BadInput(error);
  return TokenTable(reader.entries);
}

class BridgedTokenizer final : public Tokenizer {
 public:
  BridgedTokenizer(BridgeTokenizer handle, TokenTable table, bool drops_first_space,
                   std::vector<TokenId> prompt_prefix)
      : handle_(std::move(handle)),
        table_(std::move(table)),
        drops_first_space_(drops_first_space),
        prompt_prefix_(std::move(prompt_prefix)) {}

  StatusOr<std::vector<TokenId>> Encode(std::string_view text, bool parse_special) const override {
    BridgeIds ids;
    BridgeString error;
    if (!kvb_tokenizer_encode(handle_.get(), ToBridge(text), parse_special, ids.out(),
                              error.out())) {
      return BadInput(error);
    }
    return ids.ToVector();
  }

  StatusOr<std::vector<TokenId>> EncodePieces(absl::Span<const TextPiece> pieces) const override {
    std::vector<kvb_piece> bridged;
    bridged.reserve(pieces.size());
    for (const TextPiece& piece : pieces) {
      bridged.push_back({ToBridge(piece.text), piece.literal});
    }
    BridgeIds ids;
    BridgeString error;
    if (!kvb_tokenizer_encode_pieces(handle_.get(), bridged.data(), bridged.size(), ids.out(),
                                     error.out())) {
      return BadInput(error);
    }
    return ids.ToVector();
  }

  StatusOr<std::vector<TokenId>> EncodeContinuation(std::string_view text) const override {
    BridgeIds ids;
    BridgeString error;
    if (!kvb_tokenizer_encode_continuation(handle_.get(), ToBridge(text), ids.out(), error.out())) {
      return BadInput(error);
    }
    return ids.ToVector();
  }

  const std::vector<TokenId>& PromptPrefix() const override { return prompt_prefix_; }

  std::string Decode(absl::Span<const TokenId> ids, bool skip_special) const override {
    Detokenizer detokenizer(*this, skip_special);
    std::string text;
    for (const TokenId id : ids) text += detokenizer.Add(id);
    return text + detokenizer.Flush();
  }

  int32_t vocab_size() const override { return table_.size(); }
  bool IsSpecial(TokenId id) const override { return table_.IsSpecial(id); }

  TokenId TokenToId(std::string_view token) const override {
    return static_cast<TokenId>(
        kvb_tokenizer_token_to_id(handle_.get(), ToBridge(token), /*error=*/nullptr));
  }

  std::string TokenBytes(TokenId id) const override { return std::string(table_.Bytes(id)); }
  bool DropsFirstSpace() const override { return drops_first_space_; }
  const std::vector<std::string>& SpecialTexts() const override { return table_.SpecialTexts(); }

 private:
  BridgeTokenizer handle_;
  TokenTable table_;
  bool drops_first_space_;
  std::vector<TokenId> prompt_prefix_;
};

StatusOr<std::unique_ptr<Tokenizer>> Finish(BridgeTokenizer handle, const Decoding& decoding,
                                            std::vector<TokenId> prompt_prefix) {
  KVASIR_ASSIGN_OR_RETURN(TokenTable table, ReadTable(handle.get(), decoding));
  return std::make_unique<BridgedTokenizer>(std::move(handle), std::move(table),
                                            decoding.drops_first_space, std::move(prompt_prefix));
}

}  // namespace

bool DefaultAddBos(std::string_view model, std::string_view pre) {
  return model == "llama" || pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3" ||
         pre == "tekken";
}

StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufVocab& vocab) {
  KVASIR_ASSIGN_OR_RETURN(const BpeModel model, MakeBpeModel(vocab));
  std::vector<kvb_str> tokens;
  tokens.reserve(model.tokens.size());
  for (const std::string_view token : model.tokens) tokens.push_back(ToBridge(token));
  std::vector<kvb_str> merges;
  merges.reserve(model.merges.size() * 2);
  for (const auto& [left, right] : model.merges) {
    merges.push_back(ToBridge(left));
    merges.push_back(ToBridge(right));
  }
  BridgeString error;
  BridgeTokenizer handle(kvb_tokenizer_from_bpe(ToBridge(model.spec_json), tokens.data(),
                                                tokens.size(), merges.data(), model.merges.size(),
                                                error.out()));
  if (handle == nullptr) {
    return absl::InvalidArgumentError(fmt::format("tokenizer.ggml.{}", error.view()));
  }
  std::vector<TokenId> prefix;
  const bool add_bos = vocab.add_bos.value_or(DefaultAddBos(vocab.model, vocab.pre));
  if (add_bos && vocab.bos_id >= 0) prefix.push_back(vocab.bos_id);
  return Finish(std::move(handle), model.decoding, std::move(prefix));
}

StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromHuggingFace(std::string_view tokenizer_json) {
  BridgeString error;
  BridgeTokenizer handle(kvb_tokenizer_from_json(ToBridge(tokenizer_json), error.out()));
  if (handle == nullptr) {
    return absl::InvalidArgumentError(fmt::format("tokenizer.json: {}", error.view()));
  }
  BridgeString decoder;
  BridgeIds prefix;
  if (!kvb_tokenizer_decoder_json(handle.get(), decoder.out(), error.out()) ||
      !kvb_tokenizer_prompt_prefix(handle.get(), prefix.out(), error.out())) {
    return BadInput(error);
  }
  StatusOr<Decoding> decoding = ParseDecoding(decoder.view());
  if (!decoding.ok()) {
    return Status(decoding.status().code(),
                  fmt::format("tokenizer.json: {}", std::string(decoding.status().message())));
  }
  return Finish(std::move(handle), *decoding, prefix.ToVector());
}

}  // namespace kvasir::text
