#include "api/protocol/openai_answer.h"

#include <fmt/format.h>

namespace kvasir::api {
namespace {

void AddPromptLogprob(const std::string& text, TokenId id, float logprob, Json rank, Json* entry) {
  (*entry)[std::to_string(id)] = {
      {"logprob", logprob}, {"rank", std::move(rank)}, {"decoded_token", text}};
}

Json LogprobEntry(const std::string& text, float logprob) {
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", text}, {"logprob", logprob}, {"bytes", std::move(bytes)}};
}

}  // namespace

Json UsageJson(const Usage& usage) {
  Json out;
  out["prompt_tokens"] = usage.prompt_tokens;
  out["completion_tokens"] = usage.completion_tokens;
  out["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  out["prompt_tokens_details"] = {{"cached_tokens", usage.cached_tokens}};
  out["completion_tokens_details"] = {{"reasoning_tokens", usage.reasoning_tokens}};
  return out;
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

std::string TokenText(const text::Tokenizer* tokenizer, TokenId id) {
  return tokenizer == nullptr ? fmt::format("token_id:{}", id) : tokenizer->TokenBytes(id);
}

Json LogprobEntries(const std::vector<TokenOut>& tokens, const text::Tokenizer* tokenizer) {
  Json out = Json::array();
  for (const TokenOut& token : tokens) {
    Json entry = LogprobEntry(TokenText(tokenizer, token.id), token.logprob);
    entry["top_logprobs"] = Json::array();
    for (const auto& [id, logprob] : token.top_logprobs) {
      entry["top_logprobs"].push_back(LogprobEntry(TokenText(tokenizer, id), logprob));
    }
    out.push_back(std::move(entry));
  }
  return out;
}

Json FinishReasonJson(const ChoiceDelta& delta) {
  return delta.finish_reason.empty() ? Json(nullptr) : Json(delta.finish_reason);
}

std::string KeyText(const std::string& text) {
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

void OpenAiWriter::End(const Usage& usage, std::string* out) {
  if (head_.include_usage) {
    Json body = Head(ChunkObject());
    body["choices"] = Json::array();
    body["usage"] = UsageJson(usage);
    *out += SseEvent(body);
  }
  *out += "data: [DONE]\n\n";
}

void OpenAiWriter::Fail(const ErrorObject& error, std::string* out) {
  *out += fmt::format("data: {}\n\ndata: [DONE]\n\n", ErrorJson(error));
}

Json OpenAiWriter::Head(const char* object) const {
  Json body;
  body["id"] = head_.id;
  body["object"] = object;
  body["created"] = head_.created;
  body["model"] = head_.model;
  return body;
}

void OpenAiWriter::WriteChunk(Json chunk, const Usage& usage, std::string* out) const {
  if (head_.include_usage) {
    chunk["usage"] = head_.continuous_usage ? UsageJson(usage) : Json(nullptr);
  }
  *out += SseEvent(chunk);
}

bool OpenAiWriter::HasNews(const ChoiceDelta& delta) const {
  const bool tokens_count = head_.logprobs || head_.token_ids;
  return !delta.text.empty() || !delta.reasoning.empty() || !delta.tool_calls.empty() ||
         !delta.finish_reason.empty() || (tokens_count && !delta.tokens.empty());
}

Json OpenAiWriter::PromptLogprobs(const AnswerPart& part) const {
  if (head_.prompt_logprobs < 0) return nullptr;
  Json out = Json::array({nullptr});
  for (const TokenOut& token : *part.prompt_logprobs) {
    Json entry = Json::object();
    const size_t best = std::min<size_t>(token.top_logprobs.size(), head_.prompt_logprobs);
    for (size_t i = 0; i < best; ++i) {
      const auto& [id, logprob] = token.top_logprobs[i];
      AddPromptLogprob(TokenText(id), id, logprob, i + 1, &entry);
    }
    if (!entry.contains(std::to_string(token.id))) {
      AddPromptLogprob(TokenText(token.id), token.id, token.logprob, nullptr, &entry);
    }
    out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace kvasir::api
