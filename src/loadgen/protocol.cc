#include "loadgen/protocol.h"

#include <fmt/format.h>

#include <utility>

namespace kvasir::loadgen {
namespace {

using nlohmann::json;

constexpr size_t kMaxErrorBody = 64 << 10;
constexpr size_t kShownErrorBody = 200;

// Null where `value` is no object or has no such field.
const json& Field(const json& value, const char* name) {
  static const json kNull;
  if (!value.is_object()) return kNull;
  const auto it = value.find(name);
  return it == value.end() ? kNull : *it;
}

std::string TextOf(const json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

int64_t CountOf(const json& value) { return value.is_number_integer() ? value.get<int64_t>() : 0; }

}  // namespace

std::string ErrorMessage(int status, std::string_view body) {
  const json parsed = json::parse(body, nullptr, /*allow_exceptions=*/false);
  std::string message = TextOf(Field(Field(parsed, "error"), "message"));
  if (message.empty()) message = TextOf(Field(parsed, "error"));
  if (message.empty()) message = body.substr(0, kShownErrorBody);
  return fmt::format("HTTP {}: {}", status, message);
}

CompletionStream::CompletionStream(std::function<void(std::string_view)> on_output)
    : on_output_(std::move(on_output)),
      parser_([this](std::string_view data) { TakeEvent(data); }) {}

void CompletionStream::Add(int status, std::string_view bytes) {
  status_ = status;
  if (status != 200) {
    error_body_ += bytes.substr(0, kMaxErrorBody - error_body_.size());
    return;
  }
  const Status parsed = parser_.Add(bytes);
  if (error_.ok()) error_ = parsed;
}

void CompletionStream::TakeEvent(std::string_view data) {
  if (data == "[DONE]") {
    answer_.done = true;
    return;
  }
  const json event = json::parse(data, nullptr, /*allow_exceptions=*/false);
  if (event.is_discarded()) {
    error_ = absl::InternalError("the server sent an event that is not JSON");
    return;
  }
  if (!Field(event, "error").is_null()) {
    error_ = absl::InternalError(ErrorMessage(200, data));
    return;
  }
  TakeUsage(Field(event, "usage"));
  const json& choices = Field(event, "choices");
  if (!choices.is_array() || choices.empty()) return;
  const json& choice = choices.front();
  std::string text = TextOf(Field(choice, "text"));
  if (text.empty()) text = TextOf(Field(Field(choice, "delta"), "content"));
  if (text.empty()) text = TextOf(Field(Field(choice, "delta"), "reasoning_content"));
  const json& ids = Field(choice, "token_ids");
  const bool has_ids = ids.is_array() && !ids.empty();
  if (text.empty() && !has_ids) return;
  if (has_ids) {
    for (const json& id : ids) answer_.ids.push_back(static_cast<TokenId>(CountOf(id)));
  }
  answer_.text += text;
  ++pieces_;
  on_output_(text);
}

void CompletionStream::TakeUsage(const json& usage) {
  if (!usage.is_object()) return;
  answer_.input_tokens = CountOf(Field(usage, "prompt_tokens"));
  answer_.output_tokens = CountOf(Field(usage, "completion_tokens"));
  answer_.cached_tokens = CountOf(Field(Field(usage, "prompt_tokens_details"), "cached_tokens"));
}

StatusOr<CompletionStream::Answer> CompletionStream::Finish() {
  if (status_ != 200) return absl::InternalError(ErrorMessage(status_, error_body_));
  KVASIR_RETURN_IF_ERROR(error_);
  if (!answer_.done) return absl::UnavailableError("the stream broke off");
  if (answer_.output_tokens == 0) answer_.output_tokens = pieces_;
  return std::move(answer_);
}

}  // namespace kvasir::loadgen
