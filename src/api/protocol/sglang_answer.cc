#include <fmt/format.h>

#include <map>
#include <utility>

#include "api/protocol/openai_answer.h"
#include "api/protocol/sglang_api.h"

namespace kvasir::api {
namespace {

Json FinishReason(const ChoiceDelta& choice) {
  if (choice.finish_reason.empty()) return nullptr;
  if (choice.finish_reason == "length") {
    return {{"type", "length"}, {"length", choice.tokens.size()}};
  }
  Json matched = StopReasonJson(choice);
  if (matched.is_null() && !choice.tokens.empty()) matched = choice.tokens.back().id;
  return {{"type", "stop"}, {"matched", std::move(matched)}};
}

class SglangWriter final : public AnswerWriter {
 public:
  explicit SglangWriter(SglangHead head) : head_(std::move(head)) {}

  Json Whole(const std::vector<AnswerPart>& choices, const Usage&) override {
    if (!head_.list) return Answer(choices.front(), *choices.front().delta);
    Json out = Json::array();
    for (const AnswerPart& part : choices) out.push_back(Answer(part, *part.delta));
    return out;
  }

  void Write(const AnswerPart& part, const Usage&, std::string* out) override {
    ChoiceDelta& whole = choices_[part.index];
    whole.Append(*part.delta);
    Json body = Answer(part, whole);
    if (head_.list) body["index"] = part.index;
    *out += SseEvent(body);
  }

  void End(const Usage&, std::string* out) override { *out += "data: [DONE]\n\n"; }

  void Fail(const ErrorObject& error, std::string* out) override {
    *out += fmt::format("data: {}\n\ndata: [DONE]\n\n", ErrorJson(error));
  }

 private:
  Json Answer(const AnswerPart& part, const ChoiceDelta& choice) const {
    Json meta = {{"id", head_.id},
                 {"finish_reason", FinishReason(choice)},
                 {"prompt_tokens", part.prompt_ids->size()},
                 {"completion_tokens", choice.tokens.size()},
                 {"cached_tokens", part.cached_tokens}};
    if (head_.logprobs) AddLogprobs(part, choice, &meta);
    meta["e2e_latency"] = ToSeconds(SteadyClock().Now() - head_.arrival);
    return {{"text", choice.text},
            {"output_ids", TokenIdsJson(choice.tokens)},
            {"meta_info", std::move(meta)}};
  }

  Json Entry(Json logprob, TokenId id) const {
    return Json::array({std::move(logprob), id, TokenText(head_.tokenizer, id)});
  }

  Json Best(const TokenOut& token) const {
    Json out = Json::array();
    for (const auto& [id, logprob] : token.top_logprobs) out.push_back(Entry(logprob, id));
    return out;
  }

  void AddLogprobs(const AnswerPart& part, const ChoiceDelta& choice, Json* meta) const {
    Json tokens = Json::array(), best = Json::array();
    for (const TokenOut& token : choice.tokens) {
      tokens.push_back(Entry(token.logprob, token.id));
      best.push_back(Best(token));
    }
    (*meta)["output_token_logprobs"] = std::move(tokens);
    if (head_.top_logprobs) (*meta)["output_top_logprobs"] = std::move(best);
    if (head_.input_logprobs_from >= 0) AddInputLogprobs(part, meta);
  }

  // Nothing comes before the first token, so it has none.
  void AddInputLogprobs(const AnswerPart& part, Json* meta) const {
    Json tokens = Json::array(), best = Json::array();
    for (size_t i = head_.input_logprobs_from; i < part.prompt_ids->size(); ++i) {
      const TokenOut* token = i == 0 ? nullptr : &(*part.prompt_logprobs)[i - 1];
      tokens.push_back(
          Entry(token == nullptr ? Json(nullptr) : Json(token->logprob), (*part.prompt_ids)[i]));
      best.push_back(token == nullptr ? Json(nullptr) : Best(*token));
    }
    (*meta)["input_token_logprobs"] = std::move(tokens);
    if (head_.top_logprobs) (*meta)["input_top_logprobs"] = std::move(best);
  }

  const SglangHead head_;
  std::map<int32_t, ChoiceDelta> choices_;  // as far as they have come
};

}  // namespace

std::unique_ptr<AnswerWriter> SglangAnswer(SglangHead head) {
  return std::make_unique<SglangWriter>(std::move(head));
}

}  // namespace kvasir::api
