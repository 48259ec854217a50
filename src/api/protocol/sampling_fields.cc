#include "api/protocol/sampling_fields.h"

#include <absl/strings/numbers.h>
#include <fmt/format.h>

#include <algorithm>

namespace kvasir::api {
namespace {

constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;
constexpr size_t kMaxBadWords = 1024;

Json LogitBiasSchema() {
  return {{"type", "object"},
          {"propertyNames", {{"pattern", "^[0-9]{1,9}$"}}},
          {"additionalProperties", {{"type", "number"}, {"minimum", -100}, {"maximum", 100}}}};
}

void TakeLogitBias(FieldReader& reader, const Json& value, SamplingParams* sampling) {
  if (!value.is_object()) return reader.Fail("logit_bias", "must be an object of token id: bias");
  for (const auto& [key, bias] : value.items()) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(key, &id)) {
      return reader.Fail("logit_bias", fmt::format("'{}' is not a token id", key.substr(0, 32)));
    }
    if (!bias.is_number()) {
      return reader.Fail(fmt::format("logit_bias.{}", id), "must be a number");
    }
    sampling->logit_bias.emplace_back(id, static_cast<float>(bias.get<double>()));
  }
  // "7" and "07" are two keys and one token.
  std::sort(sampling->logit_bias.begin(), sampling->logit_bias.end());
  const auto same_id = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (std::adjacent_find(sampling->logit_bias.begin(), sampling->logit_bias.end(), same_id) !=
      sampling->logit_bias.end()) {
    reader.Fail("logit_bias", "names a token id twice");
  }
}

void TakeSeed(FieldReader& reader, const Json& value, GenerationOptions* options) {
  int64_t seed = 0;
  if (value.is_number_unsigned()) {
    options->sampling.seed = value.get<uint64_t>();
  } else if (AsInteger(value, &seed)) {
    options->sampling.seed = static_cast<uint64_t>(seed);
  } else {
    return reader.Fail("seed", "must be a 64-bit integer");
  }
  options->has_seed = true;
}

void ReadBadWords(FieldReader& reader, std::vector<std::string>* words) {
  reader.ReadStrings("bad_words", words);
  if (words->size() > kMaxBadWords) {
    return reader.Fail("bad_words", fmt::format("holds more than {} words", kMaxBadWords));
  }
  for (const std::string& word : *words) {
    if (word.find_first_not_of(' ') == std::string::npos || word.size() > kMaxStopBytes) {
      return reader.Fail("bad_words",
                         fmt::format("must hold words of 1 to {} bytes", kMaxStopBytes));
    }
  }
}

}  // namespace

void ReadStop(FieldReader& reader, const char* name, std::vector<std::string>* stop) {
  reader.ReadStrings(name, stop);
  if (stop->size() > kMaxStops) {
    return reader.Fail(name, fmt::format("holds more than {} strings", kMaxStops));
  }
  for (const std::string& text : *stop) {
    if (text.empty()) return reader.Fail(name, "must not hold an empty string");
    if (text.size() > kMaxStopBytes) {
      return reader.Fail(name, fmt::format("holds a string of more than {} bytes", kMaxStopBytes));
    }
  }
}

void ReadSeed(FieldReader& reader, GenerationOptions* options) {
  reader.ReadValue(
      "seed", [] { return Json{{"type", "integer"}}; },
      [&](const Json& value) { TakeSeed(reader, value, options); });
}

void ReadCoreSampling(FieldReader& reader, SamplingParams* s) {
  reader.Read("temperature", &s->temperature, {0, 100});
  reader.Read("top_k", &s->top_k, {.min = -1});
  if (s->top_k == -1) s->top_k = 0;
  reader.Read("top_p", &s->top_p, {0, 1});
  reader.Read("min_p", &s->min_p, {0, 1});
  reader.Read("presence_penalty", &s->presence_penalty, {-2, 2});
  reader.Read("frequency_penalty", &s->frequency_penalty, {-2, 2});
}

void ReadSampling(FieldReader& reader, GenerationOptions* options) {
  SamplingParams& s = options->sampling;
  ReadCoreSampling(reader, &s);
  reader.Read("repetition_penalty", &s.repetition_penalty, {0, 10});
  reader.Read("n", &s.n, {1, 128});
  reader.Read("min_tokens", &s.min_tokens, {.min = 0});
  reader.Read("stop_token_ids", &s.stop_token_ids);
  reader.Read("allowed_token_ids", &s.allowed_token_ids);
  reader.Read("ignore_eos", &s.ignore_eos);
  reader.ReadValue("logit_bias", LogitBiasSchema,
                   [&](const Json& value) { TakeLogitBias(reader, value, &s); });
  ReadStop(reader, "stop", &options->stop);
  ReadBadWords(reader, &options->bad_words);
  ReadSeed(reader, options);
}

}  // namespace kvasir::api
