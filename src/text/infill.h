// Fill-in-the-middle: the prompt of a model that was trained to write what stands between two
// texts.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace kvasir::text {

// The tokens of PREFIX before SUFFIX after MIDDLE, by the names that Qwen, DeepSeek, StarCoder,
// CodeLlama and Granite have for those control tokens; both texts are ordinary text.
// InvalidArgument where the vocabulary has none of them.
StatusOr<std::vector<TokenId>> EncodeInfill(const Tokenizer& tokenizer, std::string_view before,
                                            std::string_view after);

}  // namespace kvasir::text
