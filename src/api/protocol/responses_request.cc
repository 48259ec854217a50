#include <fmt/format.h>

#include <utility>

#include "api/protocol/chat_messages.h"
#include "api/protocol/constraint_fields.h"
#include "api/protocol/generation_fields.h"
#include "api/protocol/responses_api.h"
#include "api/protocol/sampling_fields.h"
#include "api/protocol/tools.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxItems = 65536;
constexpr size_t kMaxTools = 1024;

// Several items may be one turn of the assistant's: reasoning, a text and calls.
Json& AssistantTurn(Json* messages) {
  if (messages->empty() || messages->back()["role"] != "assistant") {
    messages->push_back({{"role", "assistant"}, {"content", nullptr}});
  }
  return messages->back();
}

void AddMessage(const std::string& role, const std::string& content, Json* messages) {
  if (role == "assistant") {
    Json& turn = AssistantTurn(messages);
    turn["content"] =
        turn["content"].is_string() ? turn["content"].get<std::string>() + "\n" + content : content;
  } else {
    messages->push_back({{"role", role}, {"content", content}});
  }
}

// All fields of all types are asked for, so that they are all described.
void ReadItem(FieldReader& item, Json* messages) {
  std::string type = "message", call_id, name, arguments, content, output;
  const char* role = "";
  item.Read("type", &type);
  item.ReadWord(
      "role",
      {{"user", "user"}, {"assistant", "assistant"}, {"system", "system"}, {"developer", "system"}},
      &role);
  item.Read("call_id", &call_id);
  item.Read("name", &name);
  item.Read("arguments", &arguments);
  ReadContent(item, "output", &output);
  if (type != "reasoning") ReadContent(item, "content", &content);
  if (type == "message") {
    item.Require("role");
    item.Require("content");
    AddMessage(role, content, messages);
  } else if (type == "function_call") {
    item.Require("call_id");
    item.Require("name");
    item.Require("arguments");
    AssistantTurn(messages)["tool_calls"].push_back(
        {{"id", call_id},
         {"type", "function"},
         {"function", {{"name", name}, {"arguments", arguments}}}});
  } else if (type == "function_call_output") {
    item.Require("call_id");
    item.Require("output");
    messages->push_back({{"role", "tool"}, {"tool_call_id", call_id}, {"content", output}});
  } else if (type != "reasoning") {  // which templates drop from earlier turns
    item.Fail("type",
              fmt::format("'{}' items are not supported by this server", type.substr(0, 64)));
  }
}

Json InputSchema() {
  Json item, unused = Json::array();
  FieldReader reader(&item);
  ReadItem(reader, &unused);
  item["properties"]["type"] = {
      {"enum", {"message", "function_call", "function_call_output", "reasoning"}}};
  item.erase("required");
  return AnyOf({{{"type", "string"}}, ArrayOf(std::move(item))});
}

void ReadInput(FieldReader& reader, Json* messages) {
  reader.Require("input");
  reader.ReadValue("input", InputSchema, [&](const Json& input) {
    if (input.is_string()) return AddMessage("user", input.get<std::string>(), messages);
    if (!input.is_array()) return reader.Fail("input", "must be a string or an array of items");
    if (input.empty()) return reader.Fail("input", "must not be empty");
    reader.ReadObjects("input", kMaxItems,
                       [&](FieldReader& item, size_t) { ReadItem(item, messages); });
  });
}

void ReadToolList(FieldReader& reader, ToolOptions* options) {
  reader.ReadObjects("tools", kMaxTools, [&](FieldReader& fields, size_t) {
    std::string type, description;
    fields.Require("type");
    fields.Read("type", &type);
    if (fields.ok() && type != "function") {
      fields.Fail("type", fmt::format("'{}' is a tool of a server that this one does not have",
                                      type.substr(0, 64)));
    }
    Tool tool = ReadFunction(fields, "parameters");
    fields.Read("description", &description);
    Json definition = FunctionDefinition(tool, description);
    if (fields.ok()) AddTool(fields, "name", std::move(tool), std::move(definition), options);
  });
}

Json ToolChoiceSchema() {
  const Json named = {
      {"type", "object"},
      {"properties",
       {{"type", {{"enum", Json::array({"function"})}}}, {"name", {{"type", "string"}}}}},
      {"required", {"type", "name"}}};
  return AnyOf({{{"enum", {"none", "auto", "required"}}}, named});
}

void TakeToolChoice(FieldReader& reader, const Json& value, ToolOptions* options) {
  const auto choose = [&](ToolChoice choice) {
    Choose(reader, choice, "tool_choice.name", options);
  };
  if (value == "auto") return choose(ToolChoice::kAuto);
  if (value == "none") return choose(ToolChoice::kNone);
  if (value == "required") return choose(ToolChoice::kRequired);
  if (!value.is_object() || value.value("type", Json()) != "function" ||
      !value.value("name", Json()).is_string()) {
    return reader.Fail("tool_choice",
                       "must be none, auto, required or an object with type function and name");
  }
  options->named = value["name"].get<std::string>();
  choose(ToolChoice::kNamed);
}

void ReadResponseTools(FieldReader& reader, ToolOptions* options) {
  ReadToolList(reader, options);
  Choose(reader, std::nullopt, "", options);
  reader.ReadValue("tool_choice", ToolChoiceSchema,
                   [&](const Json& value) { TakeToolChoice(reader, value, options); });
  reader.Read("parallel_tool_calls", &options->parallel);
}

void ReadReasoning(FieldReader& reader, ChatPrompt* prompt) {
  reader.ReadObject("reasoning", [&](FieldReader& fields) {
    std::string effort;
    fields.Read("effort", &effort);
    if (!effort.empty()) prompt->template_kwargs = {{"reasoning_effort", effort}};
  });
}

void ReadLogprobs(FieldReader& reader, SamplingParams* sampling) {
  int32_t top = 0;
  reader.Read("top_logprobs", &top, {0, kMaxTopLogprobs});
  std::vector<std::string> include;
  reader.ReadStrings("include", &include);
  for (size_t i = 0; i < include.size(); ++i) {
    if (include[i] == "message.output_text.logprobs") {
      sampling->logprobs = top;
    } else if (include[i] != "reasoning.encrypted_content") {
      reader.Fail(fmt::format("include[{}]", i), "is nothing that this server has");
    }
  }
  if (top > 0) sampling->logprobs = top;
}

void ReadMetadata(FieldReader& reader) {
  reader.ReadValue(
      "metadata", [] { return Json{{"type", "object"}}; },
      [&](const Json& value) {
        if (!value.is_object()) reader.Fail("metadata", "must be an object");
      });
}

Json EchoOf(const Json& body, const ChatRequest& chat) {
  const SamplingParams& sampling = chat.options.sampling;
  Json echo = {{"instructions", nullptr},
               {"max_output_tokens", nullptr},
               {"metadata", Json::object()},
               {"parallel_tool_calls", chat.tools.parallel},
               {"previous_response_id", nullptr},
               {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
               {"service_tier", "default"},
               {"store", false},
               {"temperature", sampling.temperature},
               {"text", {{"format", {{"type", "text"}}}}},
               {"tool_choice", "auto"},
               {"tools", Json::array()},
               {"top_logprobs", std::max(0, sampling.logprobs)},
               {"top_p", sampling.top_p},
               {"truncation", "disabled"},
               {"user", nullptr}};
  for (const char* field : {"instructions", "max_output_tokens", "metadata", "reasoning", "text",
                            "tool_choice", "tools", "truncation", "user"}) {
    if (body.contains(field) && !body[field].is_null()) echo[field] = body[field];
  }
  return echo;
}

}  // namespace

void ReadResponsesRequest(FieldReader& reader, ResponsesRequest* request) {
  GenerationOptions& options = request->chat.options;
  ChatPrompt& prompt = request->chat.prompt;
  std::string instructions;
  bool truncates = false;
  reader.Read("model", &options.model);
  reader.Read("stream", &options.stream);
  ReadContent(reader, "instructions", &instructions);
  prompt.messages = Json::array();
  if (!instructions.empty()) AddMessage("system", instructions, &prompt.messages);
  ReadInput(reader, &prompt.messages);
  ReadMaxTokens(reader, {"max_output_tokens"}, &options);
  if (options.max_tokens == 0) reader.Fail("max_output_tokens", "must be at least 1");
  ReadCoreSampling(reader, &options.sampling);
  ReadSeed(reader, &options);
  ReadLogprobs(reader, &options.sampling);
  ReadReasoning(reader, &prompt);
  reader.ReadObject("text", [&](FieldReader& text) { ReadTextFormat(text, "format", &options); });
  ReadResponseTools(reader, &request->chat.tools);
  prompt.tools = request->chat.tools.definitions;
  reader.ReadWord("truncation", {{"auto", true}, {"disabled", false}}, &truncates);
  if (truncates) options.truncate_prompt = -1;
  reader.Read("cache_salt", &options.cache_salt);
  reader.Read("priority", &options.priority);
  ReadMetadata(reader);
  RefuseUnsupported(
      reader,
      {{"previous_response_id"}, {"conversation"}, {"prompt"}, {"background"}, {"max_tool_calls"}});
  ReconcileToolsWithConstraint(reader, "text.format", &request->chat);
  request->echo = EchoOf(reader.object(), request->chat);
}

}  // namespace kvasir::api
