// The masks of constrained output, over walks along real outputs of several schemas, with the
// vocabulary of the default model and with one of 128k tokens made from it.
//
// mask: FillMask where the schema leaves a choice. step: that and taking the token, as the engine
// does between two forward passes. Every walk begins with a new matcher, as every request does.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "cli/cache_dir.h"
#include "grammar/compiler.h"
#include "grammar/cursor.h"
#include "model/checkpoint.h"
#include "text/tokenizer.h"

namespace kvasir::grammar {
namespace {

constexpr int32_t kLargeVocabulary = 128'256;
constexpr size_t kLongestToken = 16;  // bytes

struct Task {
  std::string_view schema;
  std::string_view output;
};

constexpr Task kInvoice{
    R"({"type": "object", "properties": {
      "number": {"type": "string", "pattern": "^INV-[0-9]{4}-[0-9]{3}$"},
      "date": {"type": "string", "format": "date"},
      "customer": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 40},
        "email": {"type": "string", "format": "email"}}, "required": ["name", "email"],
        "additionalProperties": false},
      "lines": {"type": "array", "items": {"type": "object", "properties": {
        "description": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1},
        "price": {"type": "number", "minimum": 0}}, "required": ["description", "quantity", "price"],
        "additionalProperties": false}},
      "currency": {"enum": ["EUR", "USD", "GBP"]}},
      "required": ["number", "date", "customer", "lines", "currency"],
      "additionalProperties": false})",
    R"({"number": "INV-2024-017", "date": "2024-05-31", "customer": {"name": "Northwind Traders Ltd.", )"
    R"("email": "accounts@northwind.example.com"}, "lines": [{"description": "Stainless steel )"
    R"(bearings, 12 mm, sealed on both sides", "quantity": 250, "price": 3.75}, {"description": )"
    R"("Assembly of two conveyor sections at the customer's site", "quantity": 2, "price": 1250.5}], )"
    R"("currency": "EUR"})"};

constexpr Task kTree{
    R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
      "name": {"type": "string"}, "kind": {"enum": ["folder", "file", "link"]},
      "size": {"type": ["integer", "null"], "minimum": 0},
      "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
      "required": ["name", "kind", "children"], "additionalProperties": false}}})",
    R"({"name": "project", "kind": "folder", "children": [{"name": "src", "kind": "folder", "size": )"
    R"(null, "children": [{"name": "main.cc", "kind": "file", "size": 18234, "children": []}, )"
    R"({"name": "scheduler_test.cc", "kind": "file", "size": 9120, "children": []}]}, {"name": )"
    R"("README.md", "kind": "file", "size": 2048, "children": []}, {"name": "latest", "kind": )"
    R"("link", "children": []}]})"};

constexpr Task kFreeObject{
    R"({"type": "object"})",
    R"({"title": "Notes from the meeting on Tuesday", "attendees": ["Ana", "Björn", "Chidi"], )"
    R"("summary": "We agreed to move the release by one week, because the migration of the )"
    R"(database takes longer than planned. Ana writes to the customers.\nNext meeting: Friday.", )"
    R"("open": true, "score": 0.875, "links": {"agenda": "https://example.com/a?b=1&c=2"}})"};

constexpr Task kUnion{
    R"({"type": "array", "items": {"anyOf": [
      {"type": "object", "properties": {"type": {"const": "text"}, "text": {"type": "string",
        "maxLength": 80}}, "required": ["type", "text"], "additionalProperties": false},
      {"type": "object", "properties": {"type": {"const": "image"}, "url": {"type": "string",
        "format": "uri"}, "width": {"type": "integer", "minimum": 1, "maximum": 8192}},
        "required": ["type", "url"], "additionalProperties": false},
      {"type": "object", "properties": {"type": {"const": "call"}, "at": {"type": "string",
        "format": "date-time"}, "numbers": {"type": "array", "items": {"type": "number"}}},
        "required": ["type", "at", "numbers"], "additionalProperties": false}]}})",
    R"([{"type": "text", "text": "Here is the picture that you asked for, and the figures."}, )"
    R"({"type": "image", "url": "https://images.example.org/2024/harbour-at-dawn.jpg", "width": )"
    R"(1920}, {"type": "call", "at": "2024-11-24T16:30:16Z", "numbers": [1, -2.5, 1200, 0.001]}])"};

// With tokens and merges appended until there are `size`: each joins two tokens of letters.
GgufVocab Enlarged(GgufVocab vocab, size_t size) {
  const auto is_word = [](const std::string& token, bool first) {
    // Ġ, two bytes, is the space of byte-level vocabularies.
    const std::string_view letters =
        first && token.starts_with("Ġ") ? std::string_view(token).substr(2) : token;
    return !letters.empty() && std::all_of(letters.begin(), letters.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    });
  };
  std::vector<std::string> heads, tails;
  for (const std::string& token : vocab.tokens) {
    if (is_word(token, true)) heads.push_back(token);
    if (is_word(token, false)) tails.push_back(token);
  }
  std::unordered_set<std::string> known(vocab.tokens.begin(), vocab.tokens.end());
  std::mt19937 random(3);
  while (vocab.tokens.size() < size) {
    const std::string& head = heads[random() % heads.size()];
    const std::string& tail = tails[random() % tails.size()];
    if (head.size() + tail.size() > kLongestToken || !known.insert(head + tail).second) continue;
    vocab.tokens.push_back(head + tail);
    vocab.types.push_back(1);
    vocab.merges.push_back(head + " " + tail);
  }
  return vocab;
}

struct Model {
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::unique_ptr<Compiler> compiler;
  TokenId eos = 0;
};

// Null where the default model is not there.
std::unique_ptr<Model> Load(bool large) {
  const auto checkpoint = model::LoadCheckpoint(cli::DefaultModelPath().string());
  if (!checkpoint.ok() || !checkpoint->text.gguf_vocab) return nullptr;
  GgufVocab vocab = *checkpoint->text.gguf_vocab;
  if (large) vocab = Enlarged(std::move(vocab), kLargeVocabulary);
  auto tokenizer = text::Tokenizer::FromGguf(vocab);
  if (!tokenizer.ok()) return nullptr;
  auto made = std::make_unique<Model>();
  made->tokenizer = *std::move(tokenizer);
  made->eos = vocab.eos_id;
  auto compiler = MakeCompiler(*made->tokenizer, made->tokenizer->vocab_size(), {{made->eos}}, {});
  if (!compiler.ok()) return nullptr;
  made->compiler = *std::move(compiler);
  return made;
}

const Model* Get(bool large) {
  static const std::unique_ptr<Model> models[2] = {Load(false), Load(true)};
  return models[large ? 1 : 0].get();
}

double MicrosecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
      .count();
}

void Report(benchmark::State& state, const std::string& name, std::vector<double> times) {
  if (times.empty()) return;
  std::sort(times.begin(), times.end());
  const double sum = std::accumulate(times.begin(), times.end(), 0.0);
  state.counters[name + "_mean_us"] = sum / static_cast<double>(times.size());
  state.counters[name + "_p99_us"] = times[times.size() * 99 / 100];
}

// The times of one walk along `ids`. An error where a token is not allowed.
Status Walk(const Model& model, const std::shared_ptr<const Grammar>& grammar,
            const std::vector<TokenId>& ids, std::vector<double>* masks,
            std::vector<double>* steps) {
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Cursor> cursor,
                          Cursor::Create(grammar, model.tokenizer->vocab_size(), {model.eos}));
  for (const TokenId id : ids) {
    const bool is_forced = !cursor->forced().empty();
    const auto begin = std::chrono::steady_clock::now();
    KVASIR_ASSIGN_OR_RETURN(const Guide guide, cursor->NextGuide());
    if (!is_forced) masks->push_back(MicrosecondsSince(begin));
    KVASIR_RETURN_IF_ERROR(cursor->Advance(id));
    steps->push_back(MicrosecondsSince(begin));
  }
  return cursor->Advance(model.eos);
}

void BM_Mask(benchmark::State& state, const Task& task) {
  const Model* model = Get(state.range(0) == kLargeVocabulary);
  if (model == nullptr) return state.SkipWithError("run scripts/fetch_default_model.sh");
  const auto ids = model->tokenizer->EncodeContinuation(std::string(task.output));
  const auto grammar =
      model->compiler->Compile({Constraint::Kind::kJsonSchema, std::string(task.schema)});
  if (!ids.ok() || !grammar.ok()) return state.SkipWithError("the schema does not compile");
  std::vector<double> masks, steps;
  for (auto _ : state) {
    const Status walked = Walk(*model, *grammar, *ids, &masks, &steps);
    if (!walked.ok()) return state.SkipWithError(std::string(walked.message()).c_str());
  }
  state.counters["tokens"] = static_cast<double>(ids->size());
  Report(state, "mask", std::move(masks));
  Report(state, "step", std::move(steps));
}

void BM_Compile(benchmark::State& state, const Task& task) {
  const Model* model = Get(state.range(0) == kLargeVocabulary);
  if (model == nullptr) return state.SkipWithError("run scripts/fetch_default_model.sh");
  int number = 0;
  for (auto _ : state) {
    // Another text each time, so that none comes from the cache.
    const std::string schema = std::string(task.schema) + std::string(++number % 300, ' ');
    const auto grammar = model->compiler->Compile({Constraint::Kind::kJsonSchema, schema});
    if (!grammar.ok()) return state.SkipWithError("the schema does not compile");
  }
}

void Vocabularies(benchmark::internal::Benchmark* one) {
  one->ArgName("vocab")->Arg(49152)->Arg(kLargeVocabulary)->UseRealTime();
  one->Unit(benchmark::kMicrosecond);
}

BENCHMARK_CAPTURE(BM_Mask, invoice, kInvoice)->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Mask, tree, kTree)->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Mask, free_object, kFreeObject)->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Mask, union, kUnion)->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Compile, invoice, kInvoice)->Apply(Vocabularies);
BENCHMARK_CAPTURE(BM_Compile, union, kUnion)->Apply(Vocabularies);

}  // namespace
}  // namespace kvasir::grammar
