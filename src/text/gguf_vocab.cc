#include "text/gguf_vocab.h"

#include <fmt/format.h>

#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "text/pre_tokenizer.h"

namespace kvasir::text {
namespace {

using nlohmann::json;
using TokenIds = absl::flat_hash_map<std::string_view, TokenId>;

// tokenizer.ggml.token_type
enum TokenType : int32_t { kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6 };

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

// SentencePiece trains pieces of at most 16 characters. Rebuilding merges costs the square of a
// piece's length, so a file may not bring absurd ones.
constexpr size_t kMaxPieceBytes = 512;

Status Bad(std::string_view field, std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("tokenizer.ggml.{}: {}", field, what));
}

Status CheckId(std::string_view field, TokenId id, size_t count) {
  if (id >= -1 && id < static_cast<int64_t>(count)) return absl::OkStatus();
  return Bad(field, fmt::format("{} is not the id of a token", id));
}

Status CheckSizes(const GgufVocab& vocab) {
  const size_t count = vocab.tokens.size();
  if (count == 0) return Bad("tokens", "empty");
  if (!vocab.types.empty() && vocab.types.size() != count) {
    return Bad("token_type", fmt::format("{} entries for {} tokens", vocab.types.size(), count));
  }
  KVASIR_RETURN_IF_ERROR(CheckId("bos_token_id", vocab.bos_id, count));
  KVASIR_RETURN_IF_ERROR(CheckId("eos_token_id", vocab.eos_id, count));
  return CheckId("unknown_token_id", vocab.unk_id, count);
}

int32_t TypeOf(const GgufVocab& vocab, size_t id) {
  return vocab.types.empty() ? 1 : vocab.types[id];
}

// Some files pad their vocabulary with empty tokens.
void NameTokens(const GgufVocab& vocab, BpeModel& model) {
  model.renamed.reserve(vocab.tokens.size());
  for (size_t id = 0; id < vocab.tokens.size(); ++id) {
    if (vocab.tokens[id].empty()) {
      model.renamed.push_back(fmt::format("[EMPTY_{}]", id));
      model.tokens.push_back(model.renamed.back());
    } else {
      model.tokens.push_back(vocab.tokens[id]);
    }
  }
}

StatusOr<TokenIds> IndexTokens(const std::vector<std::string_view>& tokens) {
  TokenIds ids;
  ids.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto [it, is_new] = ids.try_emplace(tokens[id], static_cast<TokenId>(id));
    if (!is_new) {
      return Bad("tokens", fmt::format("ids {} and {} have the same text", it->second, id));
    }
  }
  return ids;
}

json IdsOfTypes(const GgufVocab& vocab, std::initializer_list<int32_t> types) {
  json ids = json::array();
  for (size_t id = 0; id < vocab.tokens.size(); ++id) {
    if (std::find(types.begin(), types.end(), TypeOf(vocab, id)) != types.end()) ids.push_back(id);
  }
  return ids;
}

json Spec(const GgufVocab& vocab) {
  return {{"unk_token", nullptr},
          {"byte_fallback", false},
          {"fuse_unk", false},
          {"ignore_merges", false},
          {"special_ids", IdsOfTypes(vocab, {kUnknown, kControl})},
          {"added_ids", IdsOfTypes(vocab, {kUserDefined})}};
}

Status AddByteLevelParts(const GgufVocab& vocab, BpeModel& model) {
  StatusOr<PreTokenizer> pre = FindPreTokenizer(vocab.pre);
  if (!pre.ok()) return pre.status();
  json spec = Spec(vocab);
  spec["normalizer"] = std::move(pre->normalizer);
  spec["pre_tokenizer"] = std::move(pre->pre_tokenizer);
  spec["ignore_merges"] = pre->ignore_merges;
  model.spec_json = spec.dump();
  for (size_t i = 0; i < vocab.merges.size(); ++i) {
    const std::string_view merge = vocab.merges[i];
    const size_t space = merge.find(' ', 1);  // the left part may begin with a space
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      return Bad("merges", fmt::format("entry {} is not two tokens", i));
    }
    model.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return absl::OkStatus();
}

// A SentencePiece model joins, of all neighbours that make a piece, those of the best score.
// That is BPE with every way to split a piece in two as a merge, in the order of the scores.
// Control, unknown, user-defined and byte tokens never come out of a merge.
StatusOr<std::vector<std::pair<std::string_view, std::string_view>>> MergesFromScores(
    const GgufVocab& vocab, const TokenIds& ids) {
  const auto is_piece = [&](TokenId id) {
    const int32_t type = TypeOf(vocab, id);
    return type != kUnknown && type != kControl && type != kUserDefined && type != kByte;
  };
  const auto is_piece_text = [&](std::string_view text) {
    const auto it = ids.find(text);
    return it != ids.end() && is_piece(it->second);
  };
  struct Merge {
    float score;
    std::pair<std::string_view, std::string_view> halves;
  };
  std::vector<Merge> merges;
  for (size_t id = 0; id < vocab.tokens.size(); ++id) {
    const std::string_view token = vocab.tokens[id];
    if (!is_piece(static_cast<TokenId>(id))) continue;
    if (token.size() > kMaxPieceBytes) {
      return Bad("tokens", fmt::format("id {} is longer than {} bytes", id, kMaxPieceBytes));
    }
    for (size_t cut = 1; cut < token.size(); ++cut) {
      if (is_piece_text(token.substr(0, cut)) && is_piece_text(token.substr(cut))) {
        merges.push_back({vocab.scores[id], {token.substr(0, cut), token.substr(cut)}});
      }
    }
  }
  std::stable_sort(merges.begin(), merges.end(),
                   [](const Merge& a, const Merge& b) { return a.score > b.score; });
  std::vector<std::pair<std::string_view, std::string_view>> result;
  result.reserve(merges.size());
  for (const Merge& merge : merges) result.push_back(merge.halves);
  return result;
}

Status CheckScores(const GgufVocab& vocab) {
  if (vocab.scores.size() != vocab.tokens.size()) {
    return Bad("scores",
               fmt::format("{} entries for {} tokens", vocab.scores.size(), vocab.tokens.size()));
  }
  for (size_t id = 0; id < vocab.scores.size(); ++id) {
    if (std::isnan(vocab.scores[id])) return Bad("scores", fmt::format("entry {} is NaN", id));
  }
  return absl::OkStatus();
}

json SentencePieceNormalizer(bool add_space_prefix) {
  const json spaces = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}};
  if (!add_space_prefix) return spaces;
  const json prefix = {{"type", "Prepend"}, {"prepend", kSpaceMark}};
  return {{"type", "Sequence"}, {"normalizers", {prefix, spaces}}};
}

Status AddSentencePieceParts(const GgufVocab& vocab, const TokenIds& ids, BpeModel& model) {
  KVASIR_RETURN_IF_ERROR(CheckScores(vocab));
  json spec = Spec(vocab);
  spec["normalizer"] = SentencePieceNormalizer(vocab.add_space_prefix);
  spec["pre_tokenizer"] = nullptr;
  spec["byte_fallback"] = true;
  spec["fuse_unk"] = true;
  if (vocab.unk_id >= 0) spec["unk_token"] = model.tokens[vocab.unk_id];
  model.spec_json = spec.dump(-1, ' ', false, json::error_handler_t::replace);
  model.decoding = {Decoding::kSentencePiece, vocab.add_space_prefix};
  KVASIR_ASSIGN_OR_RETURN(model.merges, MergesFromScores(vocab, ids));
  return absl::OkStatus();
}

}  // namespace

StatusOr<BpeModel> MakeBpeModel(const GgufVocab& vocab) {
  if (vocab.model != "gpt2" && vocab.model != "llama") {
    return absl::UnimplementedError(
        fmt::format("tokenizer.ggml.model: unsupported tokenizer \"{}\"", vocab.model));
  }
  KVASIR_RETURN_IF_ERROR(CheckSizes(vocab));
  BpeModel model;
  NameTokens(vocab, model);
  KVASIR_ASSIGN_OR_RETURN(const TokenIds ids, IndexTokens(model.tokens));
  if (vocab.model == "gpt2") {
    KVASIR_RETURN_IF_ERROR(AddByteLevelParts(vocab, model));
  } else {
    KVASIR_RETURN_IF_ERROR(AddSentencePieceParts(vocab, ids, model));
  }
  return model;
}

}  // namespace kvasir::text
