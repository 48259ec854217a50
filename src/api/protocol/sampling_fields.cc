#include "api/protocol/sampling_fields.h"

#include <absl/strings/numbers.h>
#include <fmt/format.h>

#include <algorithm>

namespace kvasir::api {
namespace {

constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;
constexpr size_t kMaxBadWords = 1024;

void ReadLogitBias(FieldReader& reader, SamplingParams* sampling) {
  const Json* value = reader.Get("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object()) return reader.Fail("logit_bias", "must be an object of token id: bias");
  for (const auto& [key, bias] : value->items()) {
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

void ReadSeed(FieldReader& reader, GenerationOptions* options) {
  const Json* value = reader.Get("seed");
  if (value == nullptr) return;
  int64_t seed = 0;
  if (value->is_number_unsigned()) {
    options->sampling.seed = value->get<uint64_t>();
  } else if (AsInteger(*value, &seed)) {
    options->sampling.seed = static_cast<uint64_t>(seed);
  } else {
    return reader.Fail("seed", "must be a 64-bit integer");
  }
  options->has_seed = true;
}

void ReadStop(FieldReader& reader, std::vector<std::string>* stop) {
  reader.ReadStrings("stop", stop);
  if (stop->size() > kMaxStops) {
    return reader.Fail("stop", fmt::format("holds more than {} strings", kMaxStops));
  }
  for (const std::string& text : *stop) {
    if (text.empty()) return reader.Fail("stop", "must not hold an empty string");
    if (text.size() > kMaxStopBytes) {
      return reader.Fail("stop",
                         fmt::format("holds a string of more than {} bytes", kMaxStopBytes));
    }
  }
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

void ReadSampling(FieldReader& reader, GenerationOptions* options) {
  SamplingParams& s = options->sampling;
  reader.Read("temperature", &s.temperature);
  reader.Read("top_k", &s.top_k);
  if (s.top_k == -1) s.top_k = 0;
  reader.Read("top_p", &s.top_p);
  reader.Read("min_p", &s.min_p);
  reader.Read("presence_penalty", &s.presence_penalty);
  reader.Read("frequency_penalty", &s.frequency_penalty);
  reader.Read("repetition_penalty", &s.repetition_penalty);
  reader.Read("n", &s.n);
  reader.Read("min_tokens", &s.min_tokens);
  reader.Read("stop_token_ids", &s.stop_token_ids);
  reader.Read("allowed_token_ids", &s.allowed_token_ids);
  reader.Read("ignore_eos", &s.ignore_eos);
  ReadLogitBias(reader, &s);
  ReadStop(reader, &options->stop);
  ReadBadWords(reader, &options->bad_words);
  ReadSeed(reader, options);
}

}  // namespace kvasir::api
