#include "cluster/wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/block_hash.h"
#include "core/retry_after.h"

namespace kvasir::cluster {
namespace {

constexpr size_t kHashBytes = sizeof(Hash128);

Status Wrong(std::string_view field, std::string_view why) {
  return absl::InvalidArgumentError(fmt::format("{}: {}", field, why));
}

template <class To, class From>
std::vector<To> Copied(const From& from) {
  return std::vector<To>(from.begin(), from.end());
}

Hash128 HashAt(const std::string& bytes, size_t index) {
  Hash128 out;
  std::memcpy(out.bytes.data(), bytes.data() + index * kHashBytes, kHashBytes);
  return out;
}

// ---- Sampling ----

wire::Sampling ToWire(const SamplingParams& params) {
  wire::Sampling out;
  out.set_temperature(params.temperature);
  out.set_top_k(params.top_k);
  out.set_top_p(params.top_p);
  out.set_min_p(params.min_p);
  out.set_presence_penalty(params.presence_penalty);
  out.set_frequency_penalty(params.frequency_penalty);
  out.set_repetition_penalty(params.repetition_penalty);
  for (const auto& [id, bias] : params.logit_bias) {
    out.add_bias_ids(id);
    out.add_biases(bias);
  }
  out.mutable_allowed_token_ids()->Add(params.allowed_token_ids.begin(),
                                       params.allowed_token_ids.end());
  for (const std::vector<TokenId>& word : params.bad_words) {
    out.add_bad_words()->mutable_ids()->Add(word.begin(), word.end());
  }
  out.set_seed(params.seed);
  out.set_n(params.n);
  out.set_max_tokens(params.max_tokens);
  out.set_min_tokens(params.min_tokens);
  out.mutable_stop_token_ids()->Add(params.stop_token_ids.begin(), params.stop_token_ids.end());
  out.set_ignore_eos(params.ignore_eos);
  out.set_logprobs(params.logprobs);
  return out;
}

StatusOr<SamplingParams> FromWire(const wire::Sampling& sampling) {
  if (sampling.bias_ids_size() != sampling.biases_size()) {
    return Wrong("sampling.biases", "not one for each of bias_ids");
  }
  SamplingParams out;
  out.temperature = sampling.temperature();
  out.top_k = sampling.top_k();
  out.top_p = sampling.top_p();
  out.min_p = sampling.min_p();
  out.presence_penalty = sampling.presence_penalty();
  out.frequency_penalty = sampling.frequency_penalty();
  out.repetition_penalty = sampling.repetition_penalty();
  for (int i = 0; i < sampling.bias_ids_size(); ++i) {
    out.logit_bias.emplace_back(sampling.bias_ids(i), sampling.biases(i));
  }
  out.allowed_token_ids = Copied<TokenId>(sampling.allowed_token_ids());
  for (const wire::TokenIds& word : sampling.bad_words()) {
    out.bad_words.push_back(Copied<TokenId>(word.ids()));
  }
  out.seed = sampling.seed();
  out.n = sampling.n();
  out.max_tokens = sampling.max_tokens();
  out.min_tokens = sampling.min_tokens();
  out.stop_token_ids = Copied<TokenId>(sampling.stop_token_ids());
  out.ignore_eos = sampling.ignore_eos();
  out.logprobs = sampling.logprobs();
  return out;
}

// ---- Tokens ----

void Put(const TokenOut& token, wire::Token& out) {
  out.set_id(token.id);
  out.set_logprob(token.logprob);
  for (const auto& [id, logprob] : token.top_logprobs) {
    out.add_top_ids(id);
    out.add_top_logprobs(logprob);
  }
}

StatusOr<std::vector<TokenOut>> FromWire(
    const google::protobuf::RepeatedPtrField<wire::Token>& tokens, std::string_view field) {
  std::vector<TokenOut> out;
  out.reserve(tokens.size());
  for (const wire::Token& token : tokens) {
    if (token.top_ids_size() != token.top_logprobs_size()) {
      return Wrong(field, "top_logprobs is not one for each of top_ids");
    }
    TokenOut& to = out.emplace_back();
    to.id = token.id();
    to.logprob = token.logprob();
    for (int i = 0; i < token.top_ids_size(); ++i) {
      to.top_logprobs.emplace_back(token.top_ids(i), token.top_logprobs(i));
    }
  }
  return out;
}

uint64_t Microseconds(Duration d) {
  return static_cast<uint64_t>(
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(d).count()));
}

// Of a time that may lie further away than a TimePoint can say.
Duration FromMicroseconds(uint64_t us) {
  constexpr uint64_t kMost = uint64_t{365} * 24 * 3600 * 1'000'000;
  return std::chrono::microseconds(std::min(us, kMost));
}

}  // namespace

// ---- Versions ----

wire::Version OwnVersion() {
  wire::Version out;
  out.set_major(kMajorVersion);
  out.set_minor(kMinorVersion);
  return out;
}

Status CheckVersion(const wire::Version& peer, std::string_view who) {
  if (peer.major() == kMajorVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format("{} speaks version {}.{}, this is version {}.{}",
                                                   who, peer.major(), peer.minor(), kMajorVersion,
                                                   kMinorVersion));
}

// ---- Requests ----

wire::Submit ToWire(const Request& request, TimePoint now) {
  wire::Submit out;
  out.set_id(request.id);
  out.mutable_prompt_ids()->Add(request.prompt_ids.begin(), request.prompt_ids.end());
  for (const Hash128& hash : request.unit_hashes) {
    out.mutable_unit_hashes()->append(reinterpret_cast<const char*>(hash.bytes.data()), kHashBytes);
  }
  out.set_hash_root(request.hash_root.bytes.data(), kHashBytes);
  *out.mutable_sampling() = ToWire(request.sampling);
  if (request.constraint) {
    out.mutable_constraint()->set_kind(
        static_cast<wire::Constraint::Kind>(request.constraint->kind));
    out.mutable_constraint()->set_text(request.constraint->text);
  }
  if (request.beams) {
    out.mutable_beams()->set_length_penalty(request.beams->length_penalty);
    out.mutable_beams()->set_early_stopping(request.beams->early_stopping);
  }
  out.set_prompt_logprobs(request.prompt_logprobs);
  out.set_pooling(static_cast<wire::Pooling>(request.pooling));
  out.set_priority(request.priority);
  out.set_waited_us(Microseconds(now - request.arrival));
  if (request.deadline != TimePoint::max()) {
    out.set_remaining_us(Microseconds(request.deadline - now));
  }
  return out;
}

StatusOr<Request> FromWire(const wire::Submit& submit, TimePoint now) {
  if (submit.id().empty()) return Wrong("id", "is empty");
  if (submit.prompt_ids().empty()) return Wrong("prompt_ids", "there are none");
  if (submit.hash_root().size() != kHashBytes) return Wrong("hash_root", "is not 16 bytes long");
  const size_t units = submit.prompt_ids_size() / kHashUnitTokens;
  if (submit.unit_hashes().size() != units * kHashBytes) {
    return Wrong("unit_hashes", "not one for each full unit of the prompt");
  }
  if (!wire::Constraint::Kind_IsValid(submit.constraint().kind())) {
    return Wrong("constraint.kind", "is unknown");
  }
  if (!wire::Pooling_IsValid(submit.pooling())) return Wrong("pooling", "is unknown");
  Request out;
  out.id = submit.id();
  out.prompt_ids = Copied<TokenId>(submit.prompt_ids());
  for (size_t i = 0; i < units; ++i) out.unit_hashes.push_back(HashAt(submit.unit_hashes(), i));
  out.hash_root = HashAt(submit.hash_root(), 0);
  KVASIR_ASSIGN_OR_RETURN(out.sampling, FromWire(submit.sampling()));
  if (submit.has_constraint()) {
    out.constraint = Constraint{.kind = static_cast<Constraint::Kind>(submit.constraint().kind()),
                                .text = submit.constraint().text()};
  }
  if (submit.has_beams()) {
    out.beams = BeamSearch{.length_penalty = submit.beams().length_penalty(),
                           .early_stopping = submit.beams().early_stopping()};
  }
  out.prompt_logprobs = submit.prompt_logprobs();
  out.pooling = static_cast<Pooling>(submit.pooling());
  out.priority = submit.priority();
  out.arrival = now - FromMicroseconds(submit.waited_us());
  if (submit.has_remaining_us()) out.deadline = now + FromMicroseconds(submit.remaining_us());
  return out;
}

// ---- Events ----

wire::Event ToWire(const std::string& request_id, const TokenEvent& event) {
  wire::Event out;
  out.set_id(request_id);
  out.set_choice(event.choice);
  for (const TokenOut& token : event.tokens) Put(token, *out.add_tokens());
  for (const TokenOut& token : event.prompt) Put(token, *out.add_prompt());
  out.mutable_embedding()->Add(event.embedding.begin(), event.embedding.end());
  if (event.finish) out.set_finish(static_cast<wire::Finish>(*event.finish));
  if (!event.error.ok()) *out.mutable_error() = ToWire(event.error);
  out.set_cached_tokens(event.cached_tokens);
  return out;
}

StatusOr<TokenEvent> FromWire(const wire::Event& event) {
  if (event.has_finish() && !wire::Finish_IsValid(event.finish())) {
    return Wrong("finish", "is unknown");
  }
  TokenEvent out;
  out.choice = event.choice();
  KVASIR_ASSIGN_OR_RETURN(out.tokens, FromWire(event.tokens(), "tokens"));
  KVASIR_ASSIGN_OR_RETURN(out.prompt, FromWire(event.prompt(), "prompt"));
  out.embedding = Copied<float>(event.embedding());
  if (event.has_finish()) out.finish = static_cast<FinishReason>(event.finish());
  if (out.finish == FinishReason::kError) {
    out.error = FromWire(event.error());
    if (out.error.ok()) return Wrong("error", "is missing");
  }
  out.cached_tokens = event.cached_tokens();
  return out;
}

// ---- Models, errors, load ----

wire::Model ToWire(const ModelInfo& model) {
  wire::Model out;
  out.set_name(model.name);
  out.set_vocab_size(model.vocab_size);
  out.set_max_model_len(model.max_model_len);
  out.set_block_size(model.block_size);
  out.mutable_eos_ids()->Add(model.eos_ids.begin(), model.eos_ids.end());
  out.set_weights_fingerprint(model.weights_fingerprint);
  out.set_numerics_id(model.numerics_id);
  return out;
}

StatusOr<ModelInfo> FromWire(const wire::Model& model) {
  if (model.vocab_size() < 1) return Wrong("model.vocab_size", "is not positive");
  if (model.max_model_len() < 1) return Wrong("model.max_model_len", "is not positive");
  if (model.block_size() < kHashUnitTokens || model.block_size() % kHashUnitTokens != 0) {
    return Wrong("model.block_size", "is not a multiple of 16");
  }
  ModelInfo out;
  out.name = model.name();
  out.vocab_size = model.vocab_size();
  out.max_model_len = model.max_model_len();
  out.block_size = model.block_size();
  out.eos_ids = Copied<TokenId>(model.eos_ids());
  out.weights_fingerprint = model.weights_fingerprint();
  out.numerics_id = model.numerics_id();
  return out;
}

wire::Error ToWire(const Status& status) {
  wire::Error out;
  out.set_code(static_cast<int32_t>(status.code()));
  out.set_message(std::string(status.message()));
  if (const auto seconds = RetryAfterSeconds(status)) out.set_retry_after_seconds(*seconds);
  return out;
}

Status FromWire(const wire::Error& error) {
  const auto code = static_cast<absl::StatusCode>(error.code());
  Status out(code, error.message());
  if (error.has_retry_after_seconds()) SetRetryAfter(error.retry_after_seconds(), out);
  return out;
}

wire::Load LoadOf(const EngineStats& stats, bool healthy) {
  wire::Load out;
  out.set_running(stats.running);
  out.set_waiting(stats.waiting);
  out.set_blocks_total(stats.blocks_total);
  out.set_blocks_held(stats.blocks_held);
  out.set_blocks_cached(stats.blocks_cached);
  out.set_healthy(healthy);
  return out;
}

EngineStats StatsOf(const wire::Load& load) {
  EngineStats out;
  out.running = load.running();
  out.waiting = load.waiting();
  out.blocks_total = load.blocks_total();
  out.blocks_held = load.blocks_held();
  out.blocks_cached = load.blocks_cached();
  return out;
}

}  // namespace kvasir::cluster
