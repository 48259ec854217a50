#include "api/protocol/embedding_request.h"

#include <absl/strings/escaping.h>
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <utility>

#include "api/protocol/generation_fields.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxTexts = 1024;

void ReadCommon(FieldReader& reader, GenerationOptions* options, std::optional<Pooling>* pooling) {
  reader.Read("model", &options->model);
  reader.Read("add_special_tokens", &options->add_special_tokens);
  ReadTruncation(reader, &options->truncate_prompt);
  reader.Read("priority", &options->priority);
  Pooling value = Pooling::kNone;
  reader.ReadWord("pooling", {{"mean", Pooling::kMean}, {"last", Pooling::kLast}}, &value);
  if (value != Pooling::kNone) *pooling = value;
}

void ReadTexts(FieldReader& reader, const char* name, std::vector<std::string>* out) {
  reader.Require(name);
  reader.ReadStrings(name, out);
  reader.RequireItems(name);
  if (out->size() > kMaxTexts)
    reader.Fail(name, fmt::format("holds more than {} texts", kMaxTexts));
}

// A string, or an object with a text.
void ReadDocuments(FieldReader& reader, std::vector<std::string>* out) {
  const auto schema = [] {
    const Json object = {{"type", "object"},
                         {"properties", {{"text", {{"type", "string"}}}}},
                         {"required", Json::array({"text"})}};
    Json list = ArrayOf(AnyOf({{{"type", "string"}}, object}));
    list["minItems"] = 1;
    list["maxItems"] = kMaxTexts;
    return list;
  };
  reader.Require("documents");
  reader.ReadValue("documents", schema, [&](const Json& value) {
    if (!value.is_array() || value.empty()) {
      return reader.Fail("documents", "must be an array of texts");
    }
    if (value.size() > kMaxTexts) {
      return reader.Fail("documents", fmt::format("holds more than {} texts", kMaxTexts));
    }
    for (size_t i = 0; i < value.size(); ++i) {
      const Json& document = value[i];
      const Json text = document.is_object() ? document.value("text", Json()) : document;
      if (!text.is_string()) {
        return reader.Fail(fmt::format("documents[{}]", i),
                           "must be a string or an object with a text");
      }
      out->push_back(text.get<std::string>());
    }
  });
}

}  // namespace

void ReadEmbeddingRequest(FieldReader& reader, EmbeddingRequest* request) {
  ReadCommon(reader, &request->options, &request->pooling);
  reader.Read("cache_salt", &request->options.cache_salt);
  reader.Require("input");
  ReadTextOrIds(reader, "input", &request->input);
  reader.Read("normalize", &request->normalize);
  reader.ReadWord("encoding_format", {{"float", false}, {"base64", true}}, &request->base64);
  RefuseUnsupported(reader, {{"dimensions"}});
}

void ReadRerankRequest(FieldReader& reader, RerankRequest* request) {
  ReadCommon(reader, &request->options, &request->pooling);
  reader.Require("query");
  reader.Read("query", &request->query);
  reader.RequireItems("query");
  ReadDocuments(reader, &request->documents);
  reader.Read("top_n", &request->top_n, {.min = 1});
  reader.Read("return_documents", &request->return_documents);
}

void ReadScoreRequest(FieldReader& reader, ScoreRequest* request) {
  ReadCommon(reader, &request->options, &request->pooling);
  ReadTexts(reader, "text_1", &request->first);
  ReadTexts(reader, "text_2", &request->second);
  const size_t first = request->first.size(), second = request->second.size();
  if (first != second && first != 1 && second != 1) {
    reader.Fail("text_2",
                fmt::format("holds {} texts, text_1 {}: they can't be paired", second, first));
  }
}

std::string Base64(const std::vector<float>& values) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return absl::Base64Escape(bytes);
}

}  // namespace kvasir::api
