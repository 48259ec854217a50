#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "text/testing/vocabularies.h"
#include "text/utf8.h"

namespace kvasir::text {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MakeTokenizer;
using testing::TinyTokenizer;
using testing::TinyVocab;

std::vector<TokenId> Encode(const Tokenizer& tokenizer, std::string_view text,
                            bool parse_special = false) {
  const auto ids = tokenizer.Encode(text, parse_special);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(std::vector<TokenId>{});
}

std::string RandomText(std::mt19937& random) {
  static const std::vector<std::string> kParts = {
      "a", "b",  "e",  "h", "l",  "o",  "t",      " ",      "  ", "the", "fox", "is", "1",
      "7", "\n", "\t", "ü", "你", "😀", "\u0301", "\u2581", "!",  ",",   "'s",  "<|"};
  std::string text;
  for (int n = random() % 20; n > 0; --n) text += kParts[random() % kParts.size()];
  return text;
}

// SentencePiece's own algorithm, done slowly: joins the neighbours of the best score, the first of
// equals, until no two make a piece.
std::vector<TokenId> SentencePieceReference(const GgufVocab& vocab, const std::string& text) {
  if (text.empty()) return {};
  std::map<std::string, TokenId> pieces;
  for (size_t id = 0; id < vocab.tokens.size(); ++id) {
    if (vocab.types[id] == 1) pieces[vocab.tokens[id]] = static_cast<TokenId>(id);
  }
  std::vector<std::string> symbols = {"\u2581"};
  for (std::string_view rest = text; !rest.empty();) {
    const int length = FirstSequence(rest).length;
    symbols.emplace_back(rest[0] == ' ' ? "\u2581" : rest.substr(0, length));
    rest.remove_prefix(length);
  }
  while (true) {
    size_t best = symbols.size();
    float best_score = -std::numeric_limits<float>::infinity();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto it = pieces.find(symbols[i] + symbols[i + 1]);
      if (it == pieces.end() || vocab.scores[it->second] <= best_score) continue;
      best = i;
      best_score = vocab.scores[it->second];
    }
    if (best == symbols.size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::vector<TokenId> ids;
  for (const std::string& symbol : symbols) {
    if (const auto it = pieces.find(symbol); it != pieces.end()) {
      ids.push_back(it->second);
      continue;
    }
    for (const unsigned char byte : symbol) ids.push_back(3 + byte);
  }
  return ids;
}

TEST(TokenizerTest, AContinuationStandsForItsTextAlone) {
  std::mt19937 random(4);
  for (const char* name : {"tiny_bpe", "tiny_spm"}) {
    const auto tokenizer = TinyTokenizer(name);
    ASSERT_NE(tokenizer, nullptr);
    for (int i = 0; i < 200; ++i) {
      std::string text = RandomText(random);
      if (i % 10 == 0) text += tokenizer->SpecialTexts().front();  // ordinary text
      // The mark that SentencePiece writes for a space means one.
      while (text.find("\u2581") != std::string::npos) text.erase(text.find("\u2581"), 3);
      const auto ids = tokenizer->EncodeContinuation(text);
      ASSERT_TRUE(ids.ok()) << ids.status();
      std::string bytes;
      for (const TokenId id : *ids) {
        EXPECT_FALSE(tokenizer->IsSpecial(id));
        bytes += tokenizer->TokenBytes(id);
      }
      EXPECT_EQ(bytes, text);
    }
  }
}

TEST(SentencePieceTest, TokenizesAsSentencePieceDoes) {
  const GgufVocab vocab = TinyVocab("tiny_spm");
  const auto tokenizer = MakeTokenizer(vocab);
  ASSERT_NE(tokenizer, nullptr);
  std::mt19937 random(5);
  for (int round = 0; round < 1000; ++round) {
    const std::string text = RandomText(random);
    ASSERT_EQ(Encode(*tokenizer, text), SentencePieceReference(vocab, text)) << text;
  }
}

TEST(SentencePieceTest, ASpaceComesFirstOnlyWhereTheVocabularyWantsIt) {
  GgufVocab vocab = TinyVocab("tiny_spm");
  const auto with = MakeTokenizer(vocab);
  vocab.add_space_prefix = false;
  const auto without = MakeTokenizer(vocab);
  ASSERT_TRUE(with != nullptr && without != nullptr);
  EXPECT_EQ(Encode(*with, "the"), Encode(*without, " the"));
  EXPECT_EQ(with->Decode(Encode(*with, "the"), true), "the");
  EXPECT_EQ(with->Decode(Encode(*with, " the"), true), " the");
  EXPECT_EQ(without->Decode(Encode(*without, "the"), true), "the");
  EXPECT_EQ(without->Decode(Encode(*without, " the"), true), " the");
  EXPECT_TRUE(Encode(*with, "").empty());
}

TEST(ByteLevelTest, EveryTextComesBack) {
  const auto tokenizer = TinyTokenizer("tiny_bpe");
  ASSERT_NE(tokenizer, nullptr);
  std::mt19937 random(6);
  for (int round = 0; round < 1000; ++round) {
    const std::string text = RandomText(random);
    const std::vector<TokenId> ids = Encode(*tokenizer, text);
    ASSERT_EQ(tokenizer->Decode(ids, false), text);
    ASSERT_LE(ids.size(), text.size());
  }
}

TEST(TokenizerTest, ControlTokensAreTokensOnlyWhereTheyMayBe) {
  const auto tokenizer = TinyTokenizer("tiny_bpe");
  ASSERT_NE(tokenizer, nullptr);
  const TokenId end = tokenizer->TokenToId("<|im_end|>");
  ASSERT_GE(end, 0);
  EXPECT_TRUE(tokenizer->IsSpecial(end));
  EXPECT_THAT(Encode(*tokenizer, "<|im_end|>", true), ElementsAre(end));
  const std::vector<TokenId> literal = Encode(*tokenizer, "<|im_end|>", false);
  EXPECT_GT(literal.size(), 1u);
  EXPECT_EQ(tokenizer->Decode(literal, true), "<|im_end|>");
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{end}, true), "");
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{end}, false), "<|im_end|>");
}

TEST(TokenizerTest, UserDefinedTokensAreTokensEitherWay) {
  const auto tokenizer = TinyTokenizer("tiny_bpe");
  ASSERT_NE(tokenizer, nullptr);
  const TokenId call = tokenizer->TokenToId("<tool_call>");
  EXPECT_FALSE(tokenizer->IsSpecial(call));
  EXPECT_THAT(Encode(*tokenizer, "<tool_call>", true), ElementsAre(call));
  EXPECT_THAT(Encode(*tokenizer, "<tool_call>", false), ElementsAre(call));
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{call}, true), "<tool_call>");
}

TEST(TokenizerTest, TellsWhatItsTokensAre) {
  const auto bpe = TinyTokenizer("tiny_bpe");
  const auto spm = TinyTokenizer("tiny_spm");
  ASSERT_TRUE(bpe != nullptr && spm != nullptr);
  EXPECT_EQ(bpe->TokenBytes(bpe->TokenToId("Ġthe")), " the");
  EXPECT_EQ(bpe->TokenBytes(bpe->TokenToId("Ċ")), "\n");
  EXPECT_EQ(bpe->TokenBytes(bpe->TokenToId("Ã")), "\xC3");
  EXPECT_EQ(bpe->TokenBytes(bpe->TokenToId("<|im_end|>")), "<|im_end|>");
  EXPECT_EQ(bpe->TokenBytes(-1), "");
  EXPECT_EQ(bpe->TokenBytes(bpe->vocab_size()), "");
  EXPECT_EQ(bpe->TokenToId("no such token"), -1);
  EXPECT_EQ(bpe->TokenToId("\xFF"), -1);
  EXPECT_EQ(bpe->SpecialTexts(),
            (std::vector<std::string>{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}));
  EXPECT_EQ(spm->TokenBytes(spm->TokenToId("<0x0A>")), "\n");
  EXPECT_EQ(spm->TokenBytes(spm->TokenToId("\u2581the")), " the");
  EXPECT_EQ(spm->vocab_size(), static_cast<int32_t>(TinyVocab("tiny_spm").tokens.size()));
  EXPECT_THAT(spm->PromptPrefix(), ElementsAre(1));
  EXPECT_TRUE(bpe->PromptPrefix().empty());
}

TEST(TokenizerTest, PiecesAreOneTextBetweenControlTokens) {
  const auto tokenizer = TinyTokenizer("tiny_bpe");
  ASSERT_NE(tokenizer, nullptr);
  const TokenId start = tokenizer->TokenToId("<|im_start|>");
  using Pieces = std::vector<TextPiece>;
  const auto ids = tokenizer->EncodePieces(Pieces{
      {"<|im_start|>the f", false}, {"<|im_end|>", true}, {"ox", false}, {"<|im_start|>", false}});
  ASSERT_TRUE(ids.ok()) << ids.status();
  std::vector<TokenId> expected = {start};
  for (const TokenId id : Encode(*tokenizer, "the f<|im_end|>ox")) expected.push_back(id);
  expected.push_back(start);
  EXPECT_EQ(*ids, expected);

  const auto cut = tokenizer->EncodePieces(Pieces{{"the ", true}, {"fox ", false}, {"is", true}});
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ(*cut, Encode(*tokenizer, "the fox is"));
  // A token that is written half by a literal piece is none.
  const auto half = tokenizer->EncodePieces(Pieces{{"<|im_", true}, {"end|>", false}});
  ASSERT_TRUE(half.ok());
  EXPECT_EQ(*half, Encode(*tokenizer, "<|im_end|>"));
  const auto none = tokenizer->EncodePieces({});
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

TEST(TokenizerTest, InvalidTextIsAnError) {
  const auto tokenizer = TinyTokenizer("tiny_bpe");
  ASSERT_NE(tokenizer, nullptr);
  const auto ids = tokenizer->Encode("abc\xFF", false);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("UTF-8 at byte 3"));
  EXPECT_FALSE(tokenizer->EncodePieces(std::vector<TextPiece>{{"\xC3", true}}).ok());
}

TEST(TokenizerTest, LongTextsAndWordsAreNoProblem) {
  for (const char* name : {"tiny_bpe", "tiny_spm"}) {
    const auto tokenizer = TinyTokenizer(name);
    ASSERT_NE(tokenizer, nullptr);
    for (const char* unit : {"a", " ", "\n", "the ", "<|", "é"}) {
      std::string text;
      for (int i = 0; i < 20000; ++i) text += unit;
      EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, text), false), text) << name << unit;
    }
  }
}

// ---- Vocabularies that are wrong ----

void ExpectError(const GgufVocab& vocab, absl::StatusCode code, const char* message) {
  const auto tokenizer = Tokenizer::FromGguf(vocab);
  EXPECT_EQ(tokenizer.status().code(), code) << tokenizer.status();
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(message));
}

TEST(GgufVocabTest, AnUnknownKindIsNamed) {
  GgufVocab vocab = TinyVocab("tiny_bpe");
  vocab.pre = "nonsense";
  ExpectError(vocab, absl::StatusCode::kUnimplemented, "tokenizer.ggml.pre: unknown pre-tokenizer");
  vocab.pre = "";
  ExpectError(vocab, absl::StatusCode::kUnimplemented, "tokenizer.ggml.pre");
  vocab.model = "bert";
  ExpectError(vocab, absl::StatusCode::kUnimplemented, "tokenizer.ggml.model");
}

TEST(GgufVocabTest, ArraysThatContradictEachOtherAreErrors) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const GgufVocab good = TinyVocab("tiny_bpe");
  GgufVocab bad = good;
  bad.tokens.clear();
  ExpectError(bad, kInvalid, "tokenizer.ggml.tokens: empty");
  bad = good;
  bad.types.pop_back();
  ExpectError(bad, kInvalid, "tokenizer.ggml.token_type");
  bad = good;
  bad.tokens[300] = bad.tokens[299];
  ExpectError(bad, kInvalid, "ids 299 and 300 have the same text");
  bad = good;
  bad.tokens[300] = "\xFF\xFE";
  ExpectError(bad, kInvalid, "tokens: not valid UTF-8");
  bad = good;
  bad.merges[7] = "onlyone";
  ExpectError(bad, kInvalid, "tokenizer.ggml.merges: entry 7");
  bad = good;
  bad.merges[7] = "Ġ nosuchtoken";
  ExpectError(bad, kInvalid, "tokenizer.ggml.merges: ");
  bad = good;
  bad.merges[7] = "";
  ExpectError(bad, kInvalid, "tokenizer.ggml.merges: entry 7");
  bad = good;
  bad.eos_id = static_cast<TokenId>(bad.tokens.size());
  ExpectError(bad, kInvalid, "tokenizer.ggml.eos_token_id");
  bad = good;
  bad.bos_id = -7;
  ExpectError(bad, kInvalid, "tokenizer.ggml.bos_token_id");
}

TEST(GgufVocabTest, BadScoresAreErrors) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const GgufVocab good = TinyVocab("tiny_spm");
  GgufVocab bad = good;
  bad.scores.pop_back();
  ExpectError(bad, kInvalid, "tokenizer.ggml.scores");
  bad = good;
  bad.scores[300] = std::numeric_limits<float>::quiet_NaN();
  ExpectError(bad, kInvalid, "tokenizer.ggml.scores: entry 300");
  bad = good;
  bad.tokens[300] = std::string(100000, 'x');
  ExpectError(bad, kInvalid, "tokenizer.ggml.tokens: id 300 is longer");
}

TEST(GgufVocabTest, EmptyTokensGetNames) {
  GgufVocab vocab = TinyVocab("tiny_bpe");
  vocab.tokens.push_back("");
  vocab.tokens.push_back("");
  vocab.types.insert(vocab.types.end(), {1, 1});
  const auto tokenizer = MakeTokenizer(vocab);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, "the fox"), false), "the fox");
}

TEST(GgufVocabTest, EveryNamedPreTokenizerCompiles) {
  GgufVocab vocab = TinyVocab("tiny_bpe");
  for (const char* pre :
       {"default", "llama-bpe",  "llama3",       "llama-v3",       "dbrx",        "smaug-bpe",
        "qwen2",   "tekken",     "smollm",       "starcoder",      "refact",      "codeshell",
        "exaone",  "minerva-7b", "command-r",    "gpt-2",          "phi-2",       "jais",
        "mpt",     "olmo",       "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon",
        "glm4",    "chatglm-bpe"}) {
    vocab.pre = pre;
    const auto tokenizer = MakeTokenizer(vocab);
    ASSERT_NE(tokenizer, nullptr) << pre;
    const std::string text = "Hello, World's 12345 ways:\r\n\n  naïve 你好! \t'LL <=> 😀 end ";
    EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, text), false), text) << pre;
  }
}

TEST(GgufVocabTest, BosIsOnByDefaultWhereLlamaCppHasItOn) {
  EXPECT_TRUE(DefaultAddBos("llama", "default"));
  EXPECT_TRUE(DefaultAddBos("gpt2", "llama-bpe"));
  EXPECT_FALSE(DefaultAddBos("gpt2", "qwen2"));
  // A file that does not say gets what its kind means; one that says so is obeyed.
  GgufVocab vocab = TinyVocab("tiny_spm");
  vocab.add_bos.reset();
  EXPECT_THAT(Tokenizer::FromGguf(vocab).value()->PromptPrefix(), ElementsAre(vocab.bos_id));
  vocab.add_bos = false;
  EXPECT_TRUE(Tokenizer::FromGguf(vocab).value()->PromptPrefix().empty());
}

// ---- tokenizer.json ----

json HuggingFaceJson(const GgufVocab& vocab) {
  json model = {{"type", "BPE"}, {"vocab", json::object()}, {"merges", vocab.merges}};
  for (size_t id = 0; id < vocab.tokens.size(); ++id) model["vocab"][vocab.tokens[id]] = id;
  json added = json::array();
  for (size_t id = 0; id < vocab.tokens.size(); ++id) {
    if (vocab.types[id] != 3 && vocab.types[id] != 4) continue;
    added.push_back({{"id", id},
                     {"content", vocab.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", vocab.types[id] == 3}});
  }
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  return {{"version", "1.0"},          {"truncation", nullptr}, {"padding", nullptr},
          {"added_tokens", added},     {"normalizer", nullptr}, {"pre_tokenizer", byte_level},
          {"post_processor", nullptr}, {"decoder", byte_level}, {"model", model}};
}

std::unique_ptr<Tokenizer> FromJson(const json& j) {
  auto tokenizer = Tokenizer::FromHuggingFace(j.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? std::move(tokenizer).value() : nullptr;
}

TEST(HuggingFaceTest, IsTheSameTokenizer) {
  const GgufVocab vocab = TinyVocab("tiny_bpe");
  const auto gguf = MakeTokenizer(vocab);
  const auto hugging_face = FromJson(HuggingFaceJson(vocab));
  ASSERT_TRUE(gguf != nullptr && hugging_face != nullptr);
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const std::string text = RandomText(random) + "<|im_end|>" + RandomText(random);
    for (const bool parse_special : {false, true}) {
      const auto ids = Encode(*hugging_face, text, parse_special);
      ASSERT_EQ(ids, Encode(*gguf, text, parse_special)) << text;
      ASSERT_EQ(hugging_face->Decode(ids, true), gguf->Decode(ids, true));
    }
  }
  EXPECT_EQ(hugging_face->SpecialTexts(), gguf->SpecialTexts());
  EXPECT_EQ(hugging_face->vocab_size(), gguf->vocab_size());
}

TEST(HuggingFaceTest, TruncationAndPaddingInTheFileAreIgnored) {
  json j = HuggingFaceJson(TinyVocab("tiny_bpe"));
  j["truncation"] = {
      {"direction", "Right"}, {"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  j["padding"] = {{"strategy", {{"Fixed", 64}}},
                  {"direction", "Right"},
                  {"pad_to_multiple_of", nullptr},
                  {"pad_id", 0},
                  {"pad_type_id", 0},
                  {"pad_token", "<|endoftext|>"}};
  const auto tokenizer = FromJson(j);
  ASSERT_NE(tokenizer, nullptr);
  const std::string text = "the lazy dog jumps over it";
  EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, text), false), text);
}

TEST(HuggingFaceTest, ThePostProcessorTellsThePromptPrefix) {
  json j = HuggingFaceJson(TinyVocab("tiny_bpe"));
  const auto special = [](const char* name) {
    return json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  };
  const json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  j["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", {special("<|im_start|>"), sequence, special("<|im_end|>")}},
      {"pair", {sequence, sequence}},
      {"special_tokens",
       {{"<|im_start|>", {{"id", "<|im_start|>"}, {"ids", {1}}, {"tokens", {"<|im_start|>"}}}},
        {"<|im_end|>", {{"id", "<|im_end|>"}, {"ids", {2}}, {"tokens", {"<|im_end|>"}}}}}}};
  const auto tokenizer = FromJson(j);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(tokenizer->PromptPrefix(), ElementsAre(1));
  EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, "fox"), false), "fox");
}

TEST(HuggingFaceTest, AFirstSpaceComesOnlyAtTheBeginning) {
  const GgufVocab vocab = TinyVocab("tiny_spm");
  json j = HuggingFaceJson(vocab);
  j["model"]["merges"] = json::array({"\u2581 t"});
  j["model"]["byte_fallback"] = true;
  j["pre_tokenizer"] = {{"type", "Metaspace"},
                        {"replacement", "\u2581"},
                        {"prepend_scheme", "first"},
                        {"split", false}};
  j["decoder"] = j["pre_tokenizer"];
  const auto tokenizer = FromJson(j);
  ASSERT_NE(tokenizer, nullptr);
  const TokenId mark_t = tokenizer->TokenToId("\u2581t");
  const TokenId t = tokenizer->TokenToId("t");
  const TokenId end = tokenizer->TokenToId("</s>");
  EXPECT_THAT(Encode(*tokenizer, "t</s>t", true), ElementsAre(mark_t, end, t));
  for (const bool literal : {false, true}) {
    const auto ids =
        tokenizer->EncodePieces(std::vector<TextPiece>{{"t</s>", false}, {"t", literal}});
    ASSERT_TRUE(ids.ok());
    EXPECT_THAT(*ids, ElementsAre(mark_t, end, t));
  }
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{mark_t, mark_t}, true), "t t");
}

void ExpectJsonError(const std::string& text, const char* message) {
  const auto tokenizer = Tokenizer::FromHuggingFace(text);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tokenizer.json: "));
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(message));
}

TEST(HuggingFaceTest, BrokenFilesAreErrors) {
  const json good = HuggingFaceJson(TinyVocab("tiny_bpe"));
  const std::string text = good.dump();
  for (const size_t size : {size_t{0}, size_t{1}, text.size() / 2, text.size() - 1}) {
    ExpectJsonError(text.substr(0, size), "");
  }
  ExpectJsonError("[]", "");
  ExpectJsonError(std::string(100000, '['), "");
  ExpectJsonError("\xFF\xFE\x00", "");

  json bad = good;
  bad["model"]["type"] = "Nonsense";
  ExpectJsonError(bad.dump(), "");
  bad = good;
  bad["model"]["merges"].push_back("Ġ nosuchtoken");
  ExpectJsonError(bad.dump(), "");
  bad = good;
  bad["added_tokens"][1]["id"] = 77;
  ExpectJsonError(bad.dump(), "added_tokens: \"<|im_start|>\" has id 77");
  bad = good;
  bad["model"]["vocab"]["huge"] = 4000000000u;
  ExpectJsonError(bad.dump(), "token id 4000000000 is out of range");
  bad = good;
  bad["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  ExpectJsonError(bad.dump(), "decoder: unsupported");
  bad = good;
  bad["decoder"] = nullptr;
  ExpectJsonError(bad.dump(), "decoder: unsupported");
  bad = good;
  bad["pre_tokenizer"] = {{"type", "Split"},
                          {"pattern", {{"Regex", "((("}}},
                          {"behavior", "Isolated"},
                          {"invert", false}};
  ExpectJsonError(bad.dump(), "");
}

// A regular expression that tries exponentially many ways must end, in an error or not.
TEST(HuggingFaceTest, ARunawayExpressionEnds) {
  json j = HuggingFaceJson(TinyVocab("tiny_bpe"));
  j["pre_tokenizer"] = {{"type", "Split"},
                        {"pattern", {{"Regex", "(a|aa)+$"}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
  const auto tokenizer = FromJson(j);
  ASSERT_NE(tokenizer, nullptr);
  (void)tokenizer->Encode(std::string(60, 'a') + "b", false);
}

}  // namespace
}  // namespace kvasir::text
