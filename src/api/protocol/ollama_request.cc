#include <fmt/format.h>

#include <utility>

#include "api/protocol/constraint_fields.h"
#include "api/protocol/error.h"
#include "api/protocol/ollama_api.h"
#include "api/protocol/sampling_fields.h"
#include "api/protocol/tools.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxMessages = 65536;
constexpr size_t kMaxCalls = 1024;

void ReadModel(FieldReader& reader, std::string* model) {
  reader.Require("model");
  reader.Read("model", model);
  constexpr std::string_view kTag = ":latest";
  if (model->ends_with(kTag)) model->resize(model->size() - kTag.size());
}

// -1 and 0: without a limit, -2: as long as the context lasts; there is no difference here.
void ReadNumPredict(FieldReader& reader, GenerationOptions* options) {
  int32_t tokens = -1;
  reader.Read("num_predict", &tokens, {.min = -2});
  if (tokens > 0) options->max_tokens = tokens;
  options->max_tokens_field = reader.Path("num_predict");
}

// Its defaults, which are not those of the OpenAI API.
void SetDefaults(SamplingParams* sampling) {
  sampling->temperature = 0.8f;
  sampling->top_k = 40;
  sampling->top_p = 0.9f;
}

void ReadOptions(FieldReader& body, GenerationOptions* options) {
  SetDefaults(&options->sampling);
  body.ReadObject("options", [&](FieldReader& reader) {
    ReadCoreSampling(reader, &options->sampling);
    reader.Read("repeat_penalty", &options->sampling.repetition_penalty, {0, 10});
    ReadStop(reader, "stop", &options->stop);
    ReadSeed(reader, options);
    ReadNumPredict(reader, options);
  });
}

// "json" or a schema.
void ReadFormat(FieldReader& reader, GenerationOptions* options) {
  reader.ReadValue(
      "format", [] { return AnyOf({{{"enum", {"json", ""}}}, {{"type", "object"}}}); },
      [&](const Json& value) {
        if (value == "") return;
        if (value == "json") return ConstraintFields(reader, options).AnyObject("format");
        if (!value.is_object()) return reader.Fail("format", "must be json or a JSON schema");
        ConstraintFields(reader, options).Schema("format");
      });
}

Json ThinkSchema() { return AnyOf({{{"type", "boolean"}}, {{"type", "string"}}}); }

void ReadThink(FieldReader& reader, ChatPrompt* prompt) {
  reader.ReadValue("think", ThinkSchema, [&](const Json& value) {
    if (value.is_boolean()) {
      prompt->template_kwargs = {{"enable_thinking", value.get<bool>()}};
    } else if (value.is_string()) {
      prompt->template_kwargs = {{"reasoning_effort", value.get<std::string>()}};
    } else {
      reader.Fail("think", "must be a boolean or a string");
    }
  });
}

void ReadImages(FieldReader& reader) {
  std::vector<std::string> images;
  reader.ReadStrings("images", &images);
  if (!images.empty()) reader.Fail("images", "are not supported: this model takes text only");
}

void ReadCommon(FieldReader& reader, ChatRequest* request) {
  GenerationOptions& options = request->options;
  options.stream = true;
  ReadModel(reader, &options.model);
  reader.Read("stream", &options.stream);
  ReadOptions(reader, &options);
  ReadFormat(reader, &options);
  ReadThink(reader, &request->prompt);
}

// Calls have arguments that are objects, and no ids.
void ReadCalls(FieldReader& message, Json* out) {
  message.ReadObjects("tool_calls", kMaxCalls, [&](FieldReader& call, size_t index) {
    call.Require("function");
    call.ReadObject("function", [&](FieldReader& function) {
      std::string name;
      Json arguments = Json::object();
      function.Require("name");
      function.Read("name", &name);
      function.ReadObject("arguments", [&](FieldReader& fields) { arguments = fields.object(); });
      (*out)["tool_calls"].push_back(
          {{"id", fmt::format("call_{}", index)},
           {"type", "function"},
           {"function", {{"name", name}, {"arguments", Dump(arguments)}}}});
    });
  });
}

void ReadMessage(FieldReader& message, Json* messages) {
  std::string content, thinking, tool_name;
  const char* role = "";
  message.Require("role");
  message.ReadWord(
      "role",
      {{"system", "system"}, {"user", "user"}, {"assistant", "assistant"}, {"tool", "tool"}},
      &role);
  message.Read("content", &content);
  message.Read("thinking", &thinking);
  message.Read("tool_name", &tool_name);
  ReadImages(message);
  Json out = {{"role", role}, {"content", content}};
  if (!thinking.empty()) out["reasoning_content"] = thinking;
  if (!tool_name.empty()) out["name"] = tool_name;
  ReadCalls(message, &out);
  messages->push_back(std::move(out));
}

}  // namespace

void ReadOllamaChat(FieldReader& reader, ChatRequest* request) {
  ReadCommon(reader, request);
  request->prompt.messages = Json::array();
  reader.Require("messages");
  reader.ReadObjects("messages", kMaxMessages, [&](FieldReader& message, size_t) {
    ReadMessage(message, &request->prompt.messages);
  });
  reader.RequireItems("messages");
  ReadTools(reader, &request->tools);
  request->prompt.tools = request->tools.definitions;
}

void ReadOllamaGenerate(FieldReader& reader, OllamaGenerate* request) {
  std::string system;
  ReadCommon(reader, &request->chat);
  reader.Read("prompt", &request->prompt);
  reader.Read("suffix", &request->suffix);
  reader.Read("system", &system);
  reader.Read("raw", &request->raw);
  ReadImages(reader);
  Json& messages = request->chat.prompt.messages;
  messages = Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  messages.push_back({{"role", "user"}, {"content", request->prompt}});
}

void ReadOllamaEmbed(FieldReader& reader, OllamaEmbed* request) {
  ReadModel(reader, &request->model);
  reader.Require("input");
  reader.ReadStrings("input", &request->input);
  reader.Read("truncate", &request->truncate);
}

void ReadOllamaShow(FieldReader& reader, OllamaShow* request) {
  ReadModel(reader, &request->model);
}

}  // namespace kvasir::api
