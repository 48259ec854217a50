#include <vector>

#include "api/protocol/openai_answer.h"

namespace kvasir::api {
namespace {

class ChatWriter final : public OpenAiWriter {
 public:
  using OpenAiWriter::OpenAiWriter;

  Json Whole(const std::vector<AnswerPart>& choices, const Usage& usage) override {
    Json body = Head("chat.completion");
    body["choices"] = Json::array();
    for (const AnswerPart& part : choices) {
      Json choice;
      choice["index"] = part.index;
      choice["message"] = Message(*part.delta);
      choice["logprobs"] = head_.logprobs ? Logprobs(*part.delta) : Json(nullptr);
      choice["finish_reason"] = FinishReasonJson(*part.delta);
      choice["stop_reason"] = StopReasonJson(*part.delta);
      if (head_.token_ids) choice["token_ids"] = TokenIdsJson(part.delta->tokens);
      body["choices"].push_back(std::move(choice));
    }
    body["usage"] = UsageJson(usage);
    AddPrompt(choices.front(), &body);
    return body;
  }

  void Write(const AnswerPart& part, const Usage& usage, std::string* out) override {
    if (Opens(part.index)) WriteChunk(Opening(part), usage, out);
    if (HasNews(*part.delta)) WriteChunk(Chunk(part), usage, out);
  }

 private:
  const char* ChunkObject() const override { return "chat.completion.chunk"; }

  bool Opens(int32_t index) {
    if (opened_.size() <= static_cast<size_t>(index)) opened_.resize(index + 1, false);
    const bool first = !opened_[index];
    opened_[index] = true;
    return first;
  }

  void AddPrompt(const AnswerPart& part, Json* body) const {
    if (head_.token_ids) (*body)["prompt_token_ids"] = TokenIdsJson(*part.prompt_ids);
    if (head_.prompt_logprobs >= 0) (*body)["prompt_logprobs"] = PromptLogprobs(part);
  }

  // The first chunk of a choice names the role.
  Json Opening(const AnswerPart& part) const {
    Json body = Head(ChunkObject());
    Json choice;
    choice["index"] = part.index;
    choice["delta"] = {{"role", "assistant"}, {"content", ""}};
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = nullptr;
    body["choices"] = Json::array({std::move(choice)});
    AddPrompt(part, &body);
    return body;
  }

  Json Chunk(const AnswerPart& part) const {
    Json body = Head(ChunkObject());
    Json choice;
    choice["index"] = part.index;
    choice["delta"] = DeltaJson(*part.delta);
    choice["logprobs"] = head_.logprobs ? Logprobs(*part.delta) : Json(nullptr);
    choice["finish_reason"] = FinishReasonJson(*part.delta);
    if (!part.delta->finish_reason.empty()) choice["stop_reason"] = StopReasonJson(*part.delta);
    if (head_.token_ids) choice["token_ids"] = TokenIdsJson(part.delta->tokens);
    body["choices"] = Json::array({std::move(choice)});
    return body;
  }

  // An answer that is reasoning or calls alone has no content, not an empty one.
  static Json Message(const ChoiceDelta& whole) {
    Json message = {{"role", "assistant"}, {"content", whole.text}, {"refusal", nullptr}};
    if (whole.text.empty() && !(whole.reasoning.empty() && whole.tool_calls.empty())) {
      message["content"] = nullptr;
    }
    if (!whole.reasoning.empty()) message["reasoning_content"] = whole.reasoning;
    if (!whole.tool_calls.empty()) message["tool_calls"] = Json::array();
    for (const ToolCallPiece& call : whole.tool_calls) {
      message["tool_calls"].push_back(
          {{"id", call.id},
           {"type", "function"},
           {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    }
    return message;
  }

  static Json DeltaJson(const ChoiceDelta& delta) {
    Json out = Json::object();
    if (!delta.reasoning.empty()) out["reasoning_content"] = delta.reasoning;
    if (!delta.text.empty()) out["content"] = delta.text;
    for (const ToolCallPiece& call : delta.tool_calls) {
      Json piece = {{"index", call.index}};
      if (!call.name.empty()) {
        piece["id"] = call.id;
        piece["type"] = "function";
        piece["function"]["name"] = call.name;
      }
      piece["function"]["arguments"] = call.arguments;
      out["tool_calls"].push_back(std::move(piece));
    }
    return out;
  }

  Json Logprobs(const ChoiceDelta& delta) const {
    return {{"content", LogprobEntries(delta.tokens, head_.tokenizer)}};
  }

  std::vector<bool> opened_;  // of each choice: its first chunk is out
};

}  // namespace

std::unique_ptr<AnswerWriter> ChatAnswer(AnswerHead head) {
  return std::make_unique<ChatWriter>(std::move(head));
}

}  // namespace kvasir::api
