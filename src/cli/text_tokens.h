// The tokens of a file of text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "core/sampling_params.h"
#include "text/tokenizer.h"

namespace kvasir::cli {

// The first `most` (0: all). `option` is what named the file, for errors.
StatusOr<std::vector<TokenId>> ReadTokens(const std::string& option, const std::string& path,
                                          const text::Tokenizer& tokenizer, int64_t most);

}  // namespace kvasir::cli
