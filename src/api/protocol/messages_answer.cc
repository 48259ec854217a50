#include <fmt/format.h>

#include <utility>

#include "api/protocol/messages_api.h"

namespace kvasir::api {
namespace {

// Arguments that the parser let through are JSON; those that the limit cut short may not be.
Json Input(const std::string& arguments) {
  Json input = Json::parse(arguments, nullptr, false);
  return input.is_object() ? input : Json::object();
}

const char* ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status >= 500 ? "api_error" : "invalid_request_error";
  }
}

Json ErrorBody(const ErrorObject& error) {
  return {{"type", "error"},
          {"error", {{"type", ErrorType(error.http_status)}, {"message", error.message}}}};
}

Json StopReason(const ChoiceDelta& delta) {
  if (delta.finish_reason == "length") return "max_tokens";
  if (delta.finish_reason == "tool_calls") return "tool_use";
  if (std::holds_alternative<std::string>(delta.stop_reason)) return "stop_sequence";
  return "end_turn";
}

Json StopSequence(const ChoiceDelta& delta) {
  const auto* text = std::get_if<std::string>(&delta.stop_reason);
  return text == nullptr ? Json(nullptr) : Json(*text);
}

// The tokens of a prompt that the cache gave are counted apart from the others.
Json UsageOf(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens}};
}

class MessagesWriter final : public AnswerWriter {
 public:
  MessagesWriter(std::string id, std::string model)
      : id_(std::move(id)), model_(std::move(model)) {}

  Json Whole(const std::vector<AnswerPart>& choices, const Usage& usage) override {
    const ChoiceDelta& delta = *choices.front().delta;
    Json message = Message(usage);
    if (!delta.reasoning.empty()) message["content"].push_back(Thinking(delta.reasoning));
    if (!delta.text.empty()) message["content"].push_back(Text(delta.text));
    for (const ToolCallPiece& call : delta.tool_calls) {
      message["content"].push_back(ToolUse(call, Input(call.arguments)));
    }
    message["stop_reason"] = StopReason(delta);
    message["stop_sequence"] = StopSequence(delta);
    return message;
  }

  void Write(const AnswerPart& part, const Usage& usage, std::string* out) override {
    const ChoiceDelta& delta = *part.delta;
    Begin(usage, out);
    if (!delta.reasoning.empty()) {
      Open(Kind::kThinking, 0, Thinking(""), out);
      Delta({{"type", "thinking_delta"}, {"thinking", delta.reasoning}}, out);
    }
    if (!delta.text.empty()) {
      Open(Kind::kText, 0, Text(""), out);
      Delta({{"type", "text_delta"}, {"text", delta.text}}, out);
    }
    for (const ToolCallPiece& call : delta.tool_calls) {
      Open(Kind::kToolUse, call.index, ToolUse(call, Json::object()), out);
      if (call.arguments.empty()) continue;
      Delta({{"type", "input_json_delta"}, {"partial_json", call.arguments}}, out);
    }
    if (delta.finish_reason.empty()) return;
    stop_reason_ = StopReason(delta);
    stop_sequence_ = StopSequence(delta);
  }

  void End(const Usage& usage, std::string* out) override {
    Begin(usage, out);
    Close(out);
    Event("message_delta",
          {{"delta", {{"stop_reason", stop_reason_}, {"stop_sequence", stop_sequence_}}},
           {"usage", UsageOf(usage)}},
          out);
    Event("message_stop", Json::object(), out);
  }

  void Fail(const ErrorObject& error, std::string* out) override {
    *out += SseEvent("error", ErrorBody(error));
  }

 private:
  enum class Kind { kNone, kThinking, kText, kToolUse };

  static Json Thinking(const std::string& text) {
    return {{"type", "thinking"}, {"thinking", text}, {"signature", ""}};
  }
  static Json Text(const std::string& text) { return {{"type", "text"}, {"text", text}}; }
  static Json ToolUse(const ToolCallPiece& call, Json input) {
    return {
        {"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", std::move(input)}};
  }

  Json Message(const Usage& usage) const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", model_},
            {"content", Json::array()},
            {"stop_reason", nullptr},
            {"stop_sequence", nullptr},
            {"usage", UsageOf(usage)}};
  }

  static void Event(const char* type, Json fields, std::string* out) {
    Json event = {{"type", type}};
    event.update(fields);
    *out += SseEvent(type, event);
  }

  void Begin(const Usage& usage, std::string* out) {
    if (std::exchange(begun_, true)) return;
    Event("message_start", {{"message", Message(usage)}}, out);
  }

  // Goes on in the open block if it is the one, or opens it.
  void Open(Kind kind, int32_t call, Json block, std::string* out) {
    if (kind == open_ && call == call_) return;
    Close(out);
    open_ = kind;
    call_ = call;
    Event("content_block_start", {{"index", block_}, {"content_block", std::move(block)}}, out);
  }

  void Delta(Json delta, std::string* out) const {
    Event("content_block_delta", {{"index", block_}, {"delta", std::move(delta)}}, out);
  }

  void Close(std::string* out) {
    if (std::exchange(open_, Kind::kNone) == Kind::kNone) return;
    Event("content_block_stop", {{"index", block_++}}, out);
  }

  const std::string id_;
  const std::string model_;
  bool begun_ = false;
  Kind open_ = Kind::kNone;
  int32_t call_ = 0;   // of an open tool_use block
  int32_t block_ = 0;  // index of the open block, or of the next
  Json stop_reason_ = "end_turn";
  Json stop_sequence_;
};

}  // namespace

std::unique_ptr<AnswerWriter> MessagesAnswer(std::string id, std::string model) {
  return std::make_unique<MessagesWriter>(std::move(id), std::move(model));
}

HttpResponse MessagesError(const ErrorObject& error) {
  HttpResponse response = ErrorResponse(error);  // for its headers
  response.body = Dump(ErrorBody(error));
  return response;
}

}  // namespace kvasir::api
