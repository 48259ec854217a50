#include "text/pre_tokenizer.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

namespace kvasir::text {
namespace {

using nlohmann::json;

// The expressions are those of the models' own tokenizer.json files, which llama.cpp adapted under
// the names that tokenizer.ggml.pre holds. Each splits the words that the one before it left.

constexpr char kGpt2[] =
    R"re('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)re";

constexpr char kLlama3[] = R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})re"
                           R"re(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";

constexpr char kQwen2[] = R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})re"
                          R"re(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";

constexpr char kTekken[] =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)re"
    R"re(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)re"
    R"re(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";

constexpr char kDeepseekV3[] = R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)re"
                               R"re(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)re"
                               R"re(|\s*[\r\n]+|\s+(?!\S)|\s+)re";

// Letters with case, as of the Unicode version that DeepSeek LLM was trained with.
constexpr char kDeepseekLetters[] =
    R"re(\s?[)re"
    R"re(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293})re"
    R"re(\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386})re"
    R"re(\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F})re"
    R"re(\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA})re"
    R"re(\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A})re"
    R"re(\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D})re"
    R"re(\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4})re"
    R"re(\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3})re"
    R"re(\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107})re"
    R"re(\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D})re"
    R"re(\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184})re"
    R"re(\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D})re"
    R"re(\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E})re"
    R"re(\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A})re"
    R"re(\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB})re"
    R"re(\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})re"
    R"re(]+)re";

constexpr char kDeepseekPunctuation[] =
    R"re(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)re";
constexpr char kDeepseekCjk[] = R"re([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)re";

constexpr char kNewline[] = R"re([\r\n])re";
constexpr char kNumber[] = R"re(\p{N})re";
constexpr char kNumbers[] = R"re(\p{N}+)re";
constexpr char kThreeDigits[] = R"re([0-9][0-9][0-9])re";

struct Recipe {
  std::vector<std::string_view> names;  // values of tokenizer.ggml.pre
  std::vector<const char*> expressions;
  bool nfc = false;
  bool ignore_merges = false;
};

const std::vector<Recipe>& Recipes() {
  static const std::vector<Recipe> kRecipes = {
      {{"default"}, {R"re([\p{P}\$\+<=>\^~\|]+)re", kGpt2, kNumbers, kThreeDigits}},
      {{"llama-bpe", "llama3", "llama-v3"}, {kLlama3}, /*nfc=*/false, /*ignore_merges=*/true},
      {{"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, {kLlama3}},
      {{"qwen2"}, {kQwen2}, /*nfc=*/true},
      {{"tekken"}, {kTekken}, /*nfc=*/false, /*ignore_merges=*/true},
      {{"smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"}, {kNumber, kGpt2}},
      {{"command-r"}, {kNumber, kGpt2}, /*nfc=*/true},
      {{"gpt-2", "phi-2", "jais"}, {kGpt2}},
      {{"mpt", "olmo"}, {kGpt2}, /*nfc=*/true},
      {{"falcon"}, {R"re([\p{P}\$\+<=>\^~\|`]+)re", kGpt2, kThreeDigits}},
      {{"deepseek-llm"},
       {kNewline, kDeepseekLetters, kDeepseekPunctuation, R"re(\s+$)re", kDeepseekCjk, kNumbers}},
      {{"deepseek-coder"},
       {kNewline, R"re(\s?\p{L}+)re", R"re(\s?\p{P}+)re", kDeepseekCjk, kNumber}},
      {{"deepseek-v3"},
       {R"re(\p{N}{1,3})re", R"re([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)re",
        kDeepseekV3}},
  };
  return kRecipes;
}

const Recipe* FindRecipe(std::string_view pre) {
  for (const Recipe& recipe : Recipes()) {
    for (const std::string_view name : recipe.names) {
      if (name == pre) return &recipe;
    }
  }
  return nullptr;
}

}  // namespace

StatusOr<PreTokenizer> FindPreTokenizer(std::string_view pre) {
  const Recipe* recipe = FindRecipe(pre);
  if (recipe == nullptr) {
    return absl::UnimplementedError(
        fmt::format("tokenizer.ggml.pre: unknown pre-tokenizer \"{}\"", pre));
  }
  json steps = json::array();
  for (const char* expression : recipe->expressions) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", expression}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", false}});
  PreTokenizer result;
  result.pre_tokenizer = {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
  if (recipe->nfc) result.normalizer = {{"type", "NFC"}};
  result.ignore_merges = recipe->ignore_merges;
  return result;
}

}  // namespace kvasir::text
