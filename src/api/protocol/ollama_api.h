// Ollama's API, as editors speak it: /api/chat and /api/generate. Answers are streamed unless the
// client says otherwise, as one JSON object a line.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "api/protocol/answer.h"
#include "api/protocol/request.h"
#include "base/clock.h"

namespace kvasir::api {

// Models may be named with a tag: "NAME:latest".
void ReadOllamaChat(FieldReader& reader, ChatRequest* request);

struct OllamaGenerate {
  ChatRequest chat;    // the prompt as a user's message; its options count in any case
  std::string prompt;  // empty: the client only wants the model to be loaded
  std::string suffix;
  bool raw = false;  // the prompt goes to the model as it is
};
void ReadOllamaGenerate(FieldReader& reader, OllamaGenerate* request);

struct OllamaEmbed {
  std::string model;
  std::vector<std::string> input;
  bool truncate = true;  // inputs that are too long
};
void ReadOllamaEmbed(FieldReader& reader, OllamaEmbed* request);

struct OllamaShow {
  std::string model;
};
void ReadOllamaShow(FieldReader& reader, OllamaShow* request);

enum class OllamaShape { kChat, kGenerate };

std::unique_ptr<AnswerWriter> OllamaAnswer(OllamaShape shape, std::string model, TimePoint arrival);

HttpResponse OllamaError(const ErrorObject& error);

// What /api/tags, /api/show and /api/ps say of the model.
Json OllamaModel(const std::string& name, const std::string& fingerprint, int64_t created);

std::string Rfc3339(int64_t unix_seconds);

}  // namespace kvasir::api
