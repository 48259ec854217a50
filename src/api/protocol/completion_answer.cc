#include <map>

#include "api/protocol/openai_answer.h"

namespace kvasir::api {
namespace {

// The four parallel arrays of the older API.
class CompletionLogprobs {
 public:
  explicit CompletionLogprobs(int64_t* offset) : offset_(offset) {}

  // `token` is null for the first token of a prompt, which nothing comes before.
  void Add(const std::string& text, const TokenOut* token, Json top) {
    json_["tokens"].push_back(text);
    json_["token_logprobs"].push_back(token == nullptr ? Json(nullptr) : Json(token->logprob));
    json_["top_logprobs"].push_back(std::move(top));
    json_["text_offset"].push_back(*offset_);
    *offset_ += CodePoints(text);
  }

  Json Take() { return std::move(json_); }

 private:
  Json json_ = {{"tokens", Json::array()},
                {"token_logprobs", Json::array()},
                {"top_logprobs", Json::array()},
                {"text_offset", Json::array()}};
  int64_t* const offset_;
};

class CompletionWriter final : public OpenAiWriter {
 public:
  using OpenAiWriter::OpenAiWriter;

  Json Whole(const std::vector<AnswerPart>& choices, const Usage& usage) override {
    Json body = Head("text_completion");
    body["choices"] = Json::array();
    for (const AnswerPart& part : choices) {
      Json choice = Choice(part);
      choice["stop_reason"] = StopReasonJson(*part.delta);
      body["choices"].push_back(std::move(choice));
    }
    body["usage"] = UsageJson(usage);
    return body;
  }

  void Write(const AnswerPart& part, const Usage& usage, std::string* out) override {
    const bool prompt_news =
        !opened_.contains(part.index) && (part.echo != nullptr || head_.prompt_logprobs >= 0);
    if (!prompt_news && !HasNews(*part.delta)) return;
    Json body = Head(ChunkObject());
    Json choice = Choice(part);
    if (!part.delta->finish_reason.empty()) choice["stop_reason"] = StopReasonJson(*part.delta);
    body["choices"] = Json::array({std::move(choice)});
    WriteChunk(std::move(body), usage, out);
  }

 private:
  const char* ChunkObject() const override { return "text_completion"; }

  // The first piece of a choice carries what is said of its prompt.
  Json Choice(const AnswerPart& part) {
    const bool first = opened_.try_emplace(part.index, 0).second;
    const bool echo = first && part.echo != nullptr;
    Json choice;
    choice["index"] = part.index;
    choice["text"] = echo ? *part.echo + part.delta->text : part.delta->text;
    choice["logprobs"] = head_.logprobs ? Logprobs(part, echo) : Json(nullptr);
    choice["finish_reason"] = FinishReasonJson(*part.delta);
    if (head_.token_ids) choice["token_ids"] = TokenIdsJson(part.delta->tokens);
    if (first && head_.token_ids) choice["prompt_token_ids"] = TokenIdsJson(*part.prompt_ids);
    if (first && head_.prompt_logprobs >= 0) choice["prompt_logprobs"] = PromptLogprobs(part);
    return choice;
  }

  Json Logprobs(const AnswerPart& part, bool echo) {
    CompletionLogprobs out(&opened_[part.index]);
    if (echo) {
      out.Add(TokenText(part.prompt_ids->front()), nullptr, nullptr);
      for (const TokenOut& token : *part.prompt_logprobs) Add(token, &out);
    }
    for (const TokenOut& token : part.delta->tokens) Add(token, &out);
    return out.Take();
  }

  // The chosen token is always among the best, as in the OpenAI API.
  void Add(const TokenOut& token, CompletionLogprobs* out) const {
    const std::string text = TokenText(token.id);
    Json top = Json::object();
    for (const auto& [id, logprob] : token.top_logprobs) top[KeyText(TokenText(id))] = logprob;
    top[KeyText(text)] = token.logprob;
    out->Add(text, &token, std::move(top));
  }

  std::map<int32_t, int64_t> opened_;  // choices that have begun, and their next text_offset
};

}  // namespace

std::unique_ptr<AnswerWriter> CompletionAnswer(AnswerHead head) {
  return std::make_unique<CompletionWriter>(std::move(head));
}

}  // namespace kvasir::api
