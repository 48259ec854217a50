#include "api/protocol/response.h"

#include <fmt/format.h>

#include <map>

namespace kvasir::api {
namespace {

// The bytes a token stands for; without a tokenizer its number, spelled as vLLM does.
std::string TokenText(const text::Tokenizer* tokenizer, TokenId id) {
  return tokenizer == nullptr ? fmt::format("token_id:{}", id) : tokenizer->TokenBytes(id);
}

int64_t CodePoints(std::string_view text) {
  int64_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

Json TokenIds(const std::vector<TokenOut>& tokens) {
  Json ids = Json::array();
  for (const TokenOut& token : tokens) ids.push_back(token.id);
  return ids;
}

Json StopReason(const ChoiceDelta& delta) {
  if (const auto* id = std::get_if<TokenId>(&delta.stop_reason)) return *id;
  if (const auto* text = std::get_if<std::string>(&delta.stop_reason)) return *text;
  return nullptr;
}

Json FinishReasonJson(const ChoiceDelta& delta) {
  return delta.finish_reason.empty() ? Json(nullptr) : Json(delta.finish_reason);
}

class ChatWriter final : public AnswerWriter {
 public:
  using AnswerWriter::AnswerWriter;

  Json Whole(const std::vector<AnswerPart>& choices, const Usage& usage) override {
    Json body = Head("chat.completion");
    body["choices"] = Json::array();
    for (const AnswerPart& part : choices) {
      Json choice;
      choice["index"] = part.index;
      choice["message"] = Message(*part.delta);
      choice["logprobs"] = head_.logprobs ? Logprobs(*part.delta) : Json(nullptr);
      choice["finish_reason"] = FinishReasonJson(*part.delta);
      choice["stop_reason"] = StopReason(*part.delta);
      if (head_.token_ids) choice["token_ids"] = TokenIds(part.delta->tokens);
      body["choices"].push_back(std::move(choice));
    }
    body["usage"] = UsageJson(usage);
    if (head_.token_ids) body["prompt_token_ids"] = TokenIdsJson(*choices.front().prompt_ids);
    return body;
  }

  Json Opening(const AnswerPart& part) override {
    Json body = Head(ChunkObject());
    Json choice;
    choice["index"] = part.index;
    choice["delta"] = {{"role", "assistant"}, {"content", ""}};
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = nullptr;
    body["choices"] = Json::array({std::move(choice)});
    if (head_.token_ids) body["prompt_token_ids"] = TokenIdsJson(*part.prompt_ids);
    return body;
  }

  Json Chunk(const AnswerPart& part, bool) override {
    Json body = Head(ChunkObject());
    Json choice;
    choice["index"] = part.index;
    choice["delta"] = DeltaJson(*part.delta);
    choice["logprobs"] = head_.logprobs ? Logprobs(*part.delta) : Json(nullptr);
    choice["finish_reason"] = FinishReasonJson(*part.delta);
    if (!part.delta->finish_reason.empty()) choice["stop_reason"] = StopReason(*part.delta);
    if (head_.token_ids) choice["token_ids"] = TokenIds(part.delta->tokens);
    body["choices"] = Json::array({std::move(choice)});
    return body;
  }

 private:
  const char* ChunkObject() const override { return "chat.completion.chunk"; }

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

  Json Entry(TokenId id, float logprob) const {
    const std::string text = TokenText(head_.tokenizer, id);
    Json bytes = Json::array();
    for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
    Json entry;
    entry["token"] = text;
    entry["logprob"] = logprob;
    entry["bytes"] = std::move(bytes);
    return entry;
  }

  Json Logprobs(const ChoiceDelta& delta) const {
    Json content = Json::array();
    for (const TokenOut& token : delta.tokens) {
      Json entry = Entry(token.id, token.logprob);
      entry["top_logprobs"] = Json::array();
      for (const auto& [id, logprob] : token.top_logprobs) {
        entry["top_logprobs"].push_back(Entry(id, logprob));
      }
      content.push_back(std::move(entry));
    }
    Json out;
    out["content"] = std::move(content);
    return out;
  }
};

class CompletionWriter final : public AnswerWriter {
 public:
  using AnswerWriter::AnswerWriter;

  Json Whole(const std::vector<AnswerPart>& choices, const Usage& usage) override {
    Json body = Head("text_completion");
    body["choices"] = Json::array();
    for (const AnswerPart& part : choices) {
      Json choice = Choice(part);
      choice["stop_reason"] = StopReason(*part.delta);
      if (head_.token_ids) choice["prompt_token_ids"] = TokenIdsJson(*part.prompt_ids);
      body["choices"].push_back(std::move(choice));
    }
    body["usage"] = UsageJson(usage);
    return body;
  }

  Json Opening(const AnswerPart&) override { return nullptr; }

  Json Chunk(const AnswerPart& part, bool first) override {
    Json body = Head(ChunkObject());
    Json choice = Choice(part);
    if (!part.delta->finish_reason.empty()) choice["stop_reason"] = StopReason(*part.delta);
    if (head_.token_ids && first) choice["prompt_token_ids"] = TokenIdsJson(*part.prompt_ids);
    body["choices"] = Json::array({std::move(choice)});
    return body;
  }

 private:
  const char* ChunkObject() const override { return "text_completion"; }

  Json Choice(const AnswerPart& part) {
    Json choice;
    choice["index"] = part.index;
    choice["text"] = part.delta->text;
    choice["logprobs"] =
        head_.logprobs ? Logprobs(*part.delta, &text_offset_[part.index]) : Json(nullptr);
    choice["finish_reason"] = FinishReasonJson(*part.delta);
    if (head_.token_ids) choice["token_ids"] = TokenIds(part.delta->tokens);
    return choice;
  }

  Json Logprobs(const ChoiceDelta& delta, int64_t* offset) const {
    Json out = {{"tokens", Json::array()},
                {"token_logprobs", Json::array()},
                {"top_logprobs", Json::array()},
                {"text_offset", Json::array()}};
    for (const TokenOut& token : delta.tokens) {
      const std::string text = TokenText(head_.tokenizer, token.id);
      out["tokens"].push_back(text);
      out["token_logprobs"].push_back(token.logprob);
      Json top = Json::object();
      for (const auto& [id, logprob] : token.top_logprobs) {
        top[Printable(TokenText(head_.tokenizer, id))] = logprob;
      }
      // The chosen token is always among them, as in the OpenAI API.
      top[Printable(text)] = token.logprob;
      out["top_logprobs"].push_back(std::move(top));
      out["text_offset"].push_back(*offset);
      *offset += CodePoints(text);
    }
    return out;
  }

  // Keys go through here because two tokens that are halves of characters would both be written as
  // U+FFFD, and an object must not hold a key twice.
  static std::string Printable(const std::string& text) {
    const bool valid = [&] {
      try {
        (void)Json(text).dump();
        return true;
      } catch (const Json::exception&) {
        return false;
      }
    }();
    if (valid) return text;
    std::string out = "bytes:";
    for (const char c : text) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    return out;
  }

  std::map<int32_t, int64_t> text_offset_;  // of each choice, in code points
};

}  // namespace

Json UsageJson(const Usage& usage) {
  Json out;
  out["prompt_tokens"] = usage.prompt_tokens;
  out["completion_tokens"] = usage.completion_tokens;
  out["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  out["prompt_tokens_details"] = {{"cached_tokens", usage.cached_tokens}};
  return out;
}

Json AnswerWriter::Head(const char* object) const {
  Json body;
  body["id"] = head_.id;
  body["object"] = object;
  body["created"] = head_.created;
  body["model"] = head_.model;
  return body;
}

Json AnswerWriter::UsageChunk(const Usage& usage) const {
  Json body = Head(ChunkObject());
  body["choices"] = Json::array();
  body["usage"] = UsageJson(usage);
  return body;
}

std::unique_ptr<AnswerWriter> ChatAnswer(AnswerHead head) {
  return std::make_unique<ChatWriter>(std::move(head));
}

std::unique_ptr<AnswerWriter> CompletionAnswer(AnswerHead head) {
  return std::make_unique<CompletionWriter>(std::move(head));
}

Json ModelJson(const ModelInfo& model, int64_t created) {
  Json out;
  out["id"] = model.name;
  out["object"] = "model";
  out["created"] = created;
  out["owned_by"] = "kvasir";
  out["root"] = model.name;
  out["parent"] = nullptr;
  out["max_model_len"] = model.max_model_len;
  return out;
}

Json TokenIdsJson(const std::vector<TokenId>& ids) {
  Json out = Json::array();
  for (const TokenId id : ids) out.push_back(id);
  return out;
}

}  // namespace kvasir::api
