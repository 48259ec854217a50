#include "cli/text_tokens.h"

#include <fstream>
#include <iterator>

#include <fmt/format.h>

namespace kvasir::cli {

StatusOr<std::vector<TokenId>> ReadTokens(const std::string& option, const std::string& path,
                                          const text::Tokenizer& tokenizer, int64_t most) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  if (!in && text.empty()) {
    return absl::NotFoundError(fmt::format("{}: cannot read {}", option, path));
  }
  KVASIR_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                          tokenizer.Encode(text, /*parse_special=*/false));
  if (most > 0 && static_cast<int64_t>(ids.size()) > most) ids.resize(most);
  return ids;
}

}  // namespace kvasir::cli
