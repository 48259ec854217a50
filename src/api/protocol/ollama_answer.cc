#include <fmt/format.h>

#include <chrono>
#include <ctime>
#include <utility>

#include "api/protocol/ollama_api.h"

namespace kvasir::api {
namespace {

int64_t Nanoseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

// A whole call at a time: arguments are an object here, not its text.
Json CallJson(const ToolCallPiece& call) {
  const Json arguments = Json::parse(call.arguments, nullptr, false);
  return {
      {"function",
       {{"name", call.name}, {"arguments", arguments.is_object() ? arguments : Json::object()}}}};
}

class OllamaWriter final : public AnswerWriter {
 public:
  OllamaWriter(OllamaShape shape, std::string model, TimePoint arrival)
      : shape_(shape), model_(std::move(model)), arrival_(arrival) {}

  std::string_view StreamType() const override { return "application/x-ndjson"; }

  Json Whole(const std::vector<AnswerPart>& choices, const Usage& usage) override {
    first_token_ = SteadyClock().Now();
    ChoiceDelta whole = *choices.front().delta;
    finish_reason_ = whole.finish_reason;
    calls_ = std::move(whole.tool_calls);
    Json line = Line(whole.text, whole.reasoning, Calls());
    AddEnd(usage, &line);
    return line;
  }

  void Write(const AnswerPart& part, const Usage&, std::string* out) override {
    const ChoiceDelta& delta = *part.delta;
    if (first_token_ == TimePoint{}) first_token_ = SteadyClock().Now();
    ChoiceDelta calls;
    calls.tool_calls = std::move(calls_);
    calls.Append({.tool_calls = delta.tool_calls});
    calls_ = std::move(calls.tool_calls);
    if (!delta.finish_reason.empty()) finish_reason_ = delta.finish_reason;
    if (delta.text.empty() && delta.reasoning.empty()) return;
    Emit(Line(delta.text, delta.reasoning, nullptr), out);
  }

  void End(const Usage& usage, std::string* out) override {
    if (!calls_.empty()) Emit(Line("", "", Calls()), out);
    Json line = Line("", "", nullptr);
    AddEnd(usage, &line);
    Emit(line, out);
  }

  void Fail(const ErrorObject& error, std::string* out) override {
    Emit({{"error", error.message}}, out);
  }

 private:
  static void Emit(const Json& line, std::string* out) { *out += Dump(line) + "\n"; }

  Json Calls() const {
    if (calls_.empty()) return nullptr;
    Json out = Json::array();
    for (const ToolCallPiece& call : calls_) out.push_back(CallJson(call));
    return out;
  }

  Json Line(const std::string& text, const std::string& thinking, const Json& calls) const {
    Json line = {{"model", model_}, {"created_at", Rfc3339(std::time(nullptr))}};
    if (shape_ == OllamaShape::kGenerate) {
      line["response"] = text;
      if (!thinking.empty()) line["thinking"] = thinking;
    } else {
      line["message"] = {{"role", "assistant"}, {"content", text}};
      if (!thinking.empty()) line["message"]["thinking"] = thinking;
      if (!calls.is_null()) line["message"]["tool_calls"] = calls;
    }
    line["done"] = false;
    return line;
  }

  // Times are in nanoseconds. The prompt's ends with the first token.
  void AddEnd(const Usage& usage, Json* line) const {
    const TimePoint now = SteadyClock().Now();
    const TimePoint first = first_token_ == TimePoint{} ? now : first_token_;
    (*line)["done"] = true;
    (*line)["done_reason"] = finish_reason_ == "length" ? "length" : "stop";
    (*line)["total_duration"] = Nanoseconds(now - arrival_);
    (*line)["load_duration"] = 0;
    (*line)["prompt_eval_count"] = usage.prompt_tokens;
    (*line)["prompt_eval_duration"] = Nanoseconds(first - arrival_);
    (*line)["eval_count"] = usage.completion_tokens;
    (*line)["eval_duration"] = Nanoseconds(now - first);
  }

  const OllamaShape shape_;
  const std::string model_;
  const TimePoint arrival_;
  TimePoint first_token_{};
  std::vector<ToolCallPiece> calls_;
  std::string finish_reason_;
};

}  // namespace

std::unique_ptr<AnswerWriter> OllamaAnswer(OllamaShape shape, std::string model,
                                           TimePoint arrival) {
  return std::make_unique<OllamaWriter>(shape, std::move(model), arrival);
}

HttpResponse OllamaError(const ErrorObject& error) {
  HttpResponse response = ErrorResponse(error);  // for its headers
  response.body = Dump({{"error", error.message}});
  return response;
}

Json OllamaModel(const std::string& name, const std::string& fingerprint, int64_t created) {
  return {{"name", name},
          {"model", name},
          {"modified_at", Rfc3339(created)},
          {"size", 0},
          {"digest", fingerprint},
          {"details",
           {{"parent_model", ""},
            {"format", ""},
            {"family", ""},
            {"families", Json::array()},
            {"parameter_size", ""},
            {"quantization_level", ""}}}};
}

std::string Rfc3339(int64_t unix_seconds) {
  const std::time_t time = unix_seconds;
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace kvasir::api
