#include <fmt/format.h>

#include <optional>
#include <utility>

#include "api/protocol/openai_answer.h"
#include "api/protocol/responses_api.h"

namespace kvasir::api {
namespace {

Json UsageOf(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

enum class Kind { kReasoning, kMessage, kCall };

// One item of the output, as far as it has come.
struct Item {
  Kind kind = Kind::kMessage;
  std::string id;
  std::string text;  // or a call's arguments
  std::string name, call_id;
  Json logprobs = Json::array();
  bool done = false;

  Json ToJson(bool complete) const {
    const char* status = complete ? "completed" : "in_progress";
    switch (kind) {
      case Kind::kReasoning: {
        Json item = {{"id", id},
                     {"type", "reasoning"},
                     {"summary", Json::array()},
                     {"content", Json::array()},
                     {"encrypted_content", nullptr},
                     {"status", status}};
        if (complete) item["content"].push_back(Part());
        return item;
      }
      case Kind::kMessage: {
        Json item = {{"id", id},
                     {"type", "message"},
                     {"role", "assistant"},
                     {"content", Json::array()},
                     {"status", status}};
        if (complete) item["content"].push_back(Part());
        return item;
      }
      case Kind::kCall:
        return {{"id", id},     {"type", "function_call"}, {"call_id", call_id},
                {"name", name}, {"arguments", text},       {"status", status}};
    }
    return nullptr;
  }

  Json Part() const {
    if (kind == Kind::kReasoning) return {{"type", "reasoning_text"}, {"text", text}};
    return {{"type", "output_text"},
            {"text", text},
            {"annotations", Json::array()},
            {"logprobs", logprobs}};
  }
};

class ResponsesWriter final : public AnswerWriter {
 public:
  explicit ResponsesWriter(ResponseHead head) : head_(std::move(head)) {}

  // A whole answer is a stream of which only the end is shown.
  Json Whole(const std::vector<AnswerPart>& choices, const Usage& usage) override {
    std::string unused;
    Write(choices.front(), usage, &unused);
    CloseItem(&unused);
    return Response(&usage);
  }

  void Write(const AnswerPart& part, const Usage&, std::string* out) override {
    const ChoiceDelta& delta = *part.delta;
    Begin(out);
    if (!delta.reasoning.empty()) AddReasoning(delta.reasoning, out);
    if (!delta.text.empty()) AddText(delta, out);
    for (const ToolCallPiece& call : delta.tool_calls) AddCall(call, out);
    if (!delta.finish_reason.empty()) finish_reason_ = delta.finish_reason;
  }

  void End(const Usage& usage, std::string* out) override {
    Begin(out);
    CloseItem(out);
    Event(Complete() ? "response.completed" : "response.incomplete",
          {{"response", Response(&usage)}}, out);
  }

  void Fail(const ErrorObject& error, std::string* out) override {
    Event("error", {{"code", error.code}, {"message", error.message}, {"param", error.param}}, out);
    Json response = Response(nullptr);
    response["status"] = "failed";
    response["error"] = {{"code", "server_error"}, {"message", error.message}};
    Event("response.failed", {{"response", std::move(response)}}, out);
  }

 private:
  bool Complete() const { return finish_reason_ != "length"; }

  Json Response(const Usage* usage) const {
    Json out = {{"id", head_.id},
                {"object", "response"},
                {"created_at", head_.created},
                {"status", usage == nullptr ? "in_progress"
                           : Complete()     ? "completed"
                                            : "incomplete"},
                {"background", false},
                {"error", nullptr},
                {"incomplete_details", nullptr},
                {"model", head_.model},
                {"output", Json::array()}};
    if (usage != nullptr && !Complete()) {
      out["incomplete_details"] = {{"reason", "max_output_tokens"}};
    }
    for (const Item& item : items_) {
      Json json = item.ToJson(item.done);
      if (!Complete() && &item == &items_.back()) json["status"] = "incomplete";
      out["output"].push_back(std::move(json));
    }
    out.update(head_.echo);
    out["usage"] = usage == nullptr ? Json(nullptr) : UsageOf(*usage);
    return out;
  }

  void Event(const char* type, Json fields, std::string* out) {
    Json event = {{"type", type}, {"sequence_number", sequence_++}};
    event.update(fields);
    *out += SseEvent(type, event);
  }

  // Of the item that is open.
  void ItemEvent(const char* type, Json fields, std::string* out) {
    Json event = {{"item_id", items_.back().id}, {"output_index", items_.size() - 1}};
    event.update(fields);
    Event(type, std::move(event), out);
  }

  void Begin(std::string* out) {
    if (std::exchange(begun_, true)) return;
    Event("response.created", {{"response", Response(nullptr)}}, out);
    Event("response.in_progress", {{"response", Response(nullptr)}}, out);
  }

  bool IsOpen(Kind kind) const {
    return !items_.empty() && !items_.back().done && items_.back().kind == kind;
  }

  void OpenItem(Item item, std::string* out) {
    CloseItem(out);
    const char* prefix = item.kind == Kind::kReasoning ? "rs"
                         : item.kind == Kind::kCall    ? "fc"
                                                       : "msg";
    item.id =
        fmt::format("{}_{}_{}", prefix, head_.id.substr(head_.id.find('_') + 1), items_.size());
    items_.push_back(std::move(item));
    Event("response.output_item.added",
          {{"output_index", items_.size() - 1}, {"item", items_.back().ToJson(false)}}, out);
    if (items_.back().kind == Kind::kCall) return;
    ItemEvent("response.content_part.added", {{"content_index", 0}, {"part", items_.back().Part()}},
              out);
  }

  void AddReasoning(const std::string& text, std::string* out) {
    if (!IsOpen(Kind::kReasoning)) OpenItem({.kind = Kind::kReasoning}, out);
    items_.back().text += text;
    ItemEvent("response.reasoning_text.delta", {{"content_index", 0}, {"delta", text}}, out);
  }

  void AddText(const ChoiceDelta& delta, std::string* out) {
    if (!IsOpen(Kind::kMessage)) OpenItem({.kind = Kind::kMessage}, out);
    items_.back().text += delta.text;
    const Json logprobs =
        head_.logprobs ? LogprobEntries(delta.tokens, head_.tokenizer) : Json::array();
    for (const Json& entry : logprobs) items_.back().logprobs.push_back(entry);
    ItemEvent("response.output_text.delta",
              {{"content_index", 0}, {"delta", delta.text}, {"logprobs", logprobs}}, out);
  }

  void AddCall(const ToolCallPiece& call, std::string* out) {
    if (!call.name.empty()) {
      OpenItem({.kind = Kind::kCall, .name = call.name, .call_id = call.id}, out);
    }
    if (call.arguments.empty()) return;
    items_.back().text += call.arguments;
    ItemEvent("response.function_call_arguments.delta", {{"delta", call.arguments}}, out);
  }

  void CloseItem(std::string* out) {
    if (items_.empty() || items_.back().done) return;
    Item& item = items_.back();
    switch (item.kind) {
      case Kind::kReasoning:
        ItemEvent("response.reasoning_text.done", {{"content_index", 0}, {"text", item.text}}, out);
        break;
      case Kind::kMessage:
        ItemEvent("response.output_text.done",
                  {{"content_index", 0}, {"text", item.text}, {"logprobs", item.logprobs}}, out);
        break;
      case Kind::kCall:
        ItemEvent("response.function_call_arguments.done",
                  {{"name", item.name}, {"arguments", item.text}}, out);
        break;
    }
    if (item.kind != Kind::kCall) {
      ItemEvent("response.content_part.done", {{"content_index", 0}, {"part", item.Part()}}, out);
    }
    item.done = true;
    Event("response.output_item.done",
          {{"output_index", items_.size() - 1}, {"item", item.ToJson(true)}}, out);
  }

  const ResponseHead head_;
  int64_t sequence_ = 0;
  bool begun_ = false;
  std::vector<Item> items_;
  std::string finish_reason_;
};

}  // namespace

std::unique_ptr<AnswerWriter> ResponsesAnswer(ResponseHead head) {
  return std::make_unique<ResponsesWriter>(std::move(head));
}

}  // namespace kvasir::api
