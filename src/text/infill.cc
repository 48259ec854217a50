#include "text/infill.h"

#include <array>

namespace kvasir::text {
namespace {

struct Names {
  std::string_view prefix, suffix, middle;
};

constexpr std::array<Names, 5> kNames = {{
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},
    {"▁<PRE>", "▁<SUF>", "▁<MID>"},
}};

}  // namespace

StatusOr<std::vector<TokenId>> EncodeInfill(const Tokenizer& tokenizer, std::string_view before,
                                            std::string_view after) {
  for (const Names& names : kNames) {
    const TokenId prefix = tokenizer.TokenToId(names.prefix);
    const TokenId suffix = tokenizer.TokenToId(names.suffix);
    const TokenId middle = tokenizer.TokenToId(names.middle);
    if (prefix < 0 || suffix < 0 || middle < 0) continue;
    KVASIR_ASSIGN_OR_RETURN(const std::vector<TokenId> first, tokenizer.EncodeContinuation(before));
    KVASIR_ASSIGN_OR_RETURN(const std::vector<TokenId> last, tokenizer.EncodeContinuation(after));
    std::vector<TokenId> ids = tokenizer.PromptPrefix();
    ids.push_back(prefix);
    ids.insert(ids.end(), first.begin(), first.end());
    ids.push_back(suffix);
    ids.insert(ids.end(), last.begin(), last.end());
    ids.push_back(middle);
    return ids;
  }
  return absl::InvalidArgumentError("this model's vocabulary has no tokens for filling in");
}

}  // namespace kvasir::text
