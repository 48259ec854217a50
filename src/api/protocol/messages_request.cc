#include <fmt/format.h>

#include <utility>

#include "api/protocol/chat_messages.h"
#include "api/protocol/constraint_fields.h"
#include "api/protocol/generation_fields.h"
#include "api/protocol/messages_api.h"
#include "api/protocol/sampling_fields.h"
#include "api/protocol/tools.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxMessages = 65536;
constexpr size_t kMaxBlocks = 4096;
constexpr size_t kMaxTools = 1024;

// What one message's blocks come to, in the form of chat completions.
struct Blocks {
  std::string text, reasoning;
  Json calls = Json::array();
  Json results = Json::array();  // messages of their own
};

void AddLine(const std::string& line, std::string* text) {
  if (!text->empty()) *text += '\n';
  *text += line;
}

// All fields of all types are asked for, so that they are all described.
void ReadBlock(FieldReader& block, bool from_user, Blocks* out) {
  std::string type, text, thinking, id, name, used, result;
  Json input = Json::object();
  block.Require("type");
  block.Read("type", &type);
  block.Read("text", &text);
  block.Read("thinking", &thinking);
  block.Read("id", &id);
  block.Read("name", &name);
  block.Read("tool_use_id", &used);
  block.ReadObject("input", [&](FieldReader& reader) { input = reader.object(); });
  ReadContent(block, "content", &result);
  if (type == "text") {
    block.Require("text");
    AddLine(text, &out->text);
  } else if (type == "tool_use" && !from_user) {
    block.Require("id");
    block.Require("name");
    out->calls.push_back({{"id", id},
                          {"type", "function"},
                          {"function", {{"name", name}, {"arguments", Dump(input)}}}});
  } else if (type == "tool_result" && from_user) {
    block.Require("tool_use_id");
    out->results.push_back({{"role", "tool"}, {"tool_call_id", used}, {"content", result}});
  } else if (type == "thinking" && !from_user) {
    AddLine(thinking, &out->reasoning);
  } else if (type == "tool_use" || type == "tool_result" || type == "thinking") {
    block.Fail("type", fmt::format("'{}' is not for a message of this role", type));
  } else if (type != "redacted_thinking") {  // which nobody but its maker can read
    block.Fail("type", UnsupportedPart(type));
  }
}

Json BlockSchema() {
  Json schema;
  FieldReader reader(&schema);
  Blocks unused;
  ReadBlock(reader, true, &unused);
  schema["properties"]["type"] = {
      {"enum", {"text", "tool_use", "tool_result", "thinking", "redacted_thinking"}}};
  return schema;
}

Json ContentSchema() { return AnyOf({{{"type", "string"}}, ArrayOf(BlockSchema())}); }

void TakeContent(FieldReader& message, const Json& content, bool from_user, Blocks* out) {
  if (content.is_string()) {
    out->text = content.get<std::string>();
    return;
  }
  message.ReadObjects("content", kMaxBlocks,
                      [&](FieldReader& block, size_t) { ReadBlock(block, from_user, out); });
}

void AddMessages(bool from_user, Blocks blocks, Json* messages) {
  for (Json& result : blocks.results) messages->push_back(std::move(result));
  if (from_user) {
    if (blocks.results.empty() || !blocks.text.empty()) {
      messages->push_back({{"role", "user"}, {"content", blocks.text}});
    }
    return;
  }
  Json message = {{"role", "assistant"}, {"content", blocks.text}};
  if (!blocks.reasoning.empty()) message["reasoning_content"] = blocks.reasoning;
  if (!blocks.calls.empty()) message["tool_calls"] = std::move(blocks.calls);
  messages->push_back(std::move(message));
}

void ReadMessageList(FieldReader& reader, ChatPrompt* prompt) {
  bool from_user = true;
  reader.Require("messages");
  reader.ReadObjects("messages", kMaxMessages, [&](FieldReader& message, size_t) {
    Blocks blocks;
    message.Require("role");
    message.ReadWord("role", {{"user", true}, {"assistant", false}}, &from_user);
    message.Require("content");
    message.ReadValue("content", ContentSchema, [&](const Json& content) {
      TakeContent(message, content, from_user, &blocks);
    });
    AddMessages(from_user, std::move(blocks), &prompt->messages);
  });
  reader.RequireItems("messages");
  prompt->continue_final_message = !from_user;
  prompt->add_generation_prompt = from_user;
}

void ReadSystem(FieldReader& reader, ChatPrompt* prompt) {
  std::string system;
  ReadContent(reader, "system", &system);
  prompt->messages = Json::array();
  if (!system.empty()) prompt->messages.push_back({{"role", "system"}, {"content", system}});
}

void ReadToolList(FieldReader& reader, ToolOptions* options) {
  reader.ReadObjects("tools", kMaxTools, [&](FieldReader& fields, size_t) {
    std::string type = "custom", description;
    fields.Read("type", &type);
    if (type != "custom") {
      fields.Fail("type", fmt::format("'{}' is a tool of a server that this one does not have",
                                      type.substr(0, 64)));
    }
    fields.Require("input_schema");
    Tool tool = ReadFunction(fields, "input_schema");
    fields.Read("description", &description);
    Json definition = FunctionDefinition(tool, description);
    if (fields.ok()) AddTool(fields, "name", std::move(tool), std::move(definition), options);
  });
}

void ReadToolChoice(FieldReader& reader, ToolOptions* options) {
  std::optional<ToolChoice> choice;
  reader.ReadObject("tool_choice", [&](FieldReader& fields) {
    ToolChoice type = ToolChoice::kAuto;
    bool alone = false;
    fields.Require("type");
    fields.ReadWord("type",
                    {{"auto", ToolChoice::kAuto},
                     {"any", ToolChoice::kRequired},
                     {"tool", ToolChoice::kNamed},
                     {"none", ToolChoice::kNone}},
                    &type);
    fields.Read("name", &options->named);
    fields.Read("disable_parallel_tool_use", &alone);
    if (type == ToolChoice::kNamed) fields.Require("name");
    options->parallel = !alone;
    choice = type;
  });
  Choose(reader, choice, "tool_choice.name", options);
}

// What templates of models that may think or not ask for.
void ReadThinking(FieldReader& reader, ChatPrompt* prompt) {
  bool thinks = false;
  const bool told = reader.ReadObject("thinking", [&](FieldReader& fields) {
    int32_t budget = 0;
    fields.Require("type");
    fields.ReadWord("type", {{"enabled", true}, {"adaptive", true}, {"disabled", false}}, &thinks);
    fields.Read("budget_tokens", &budget, {.min = 0});
  });
  if (told) prompt->template_kwargs = {{"enable_thinking", thinks}};
}

// What shapes the prompt, and is all that counting its tokens takes.
void ReadPrompt(FieldReader& reader, ChatRequest* request) {
  reader.Require("model");
  reader.Read("model", &request->options.model);
  ReadSystem(reader, &request->prompt);
  ReadMessageList(reader, &request->prompt);
  ReadToolList(reader, &request->tools);
  ReadToolChoice(reader, &request->tools);
  request->prompt.tools = request->tools.definitions;
  ReadThinking(reader, &request->prompt);
}

void ReadFormat(FieldReader& reader, const char* name, GenerationOptions* options) {
  reader.ReadObject(name, [&](FieldReader& format) {
    bool schema = false;
    format.Require("type");
    format.ReadWord("type", {{"json_schema", true}}, &schema);
    format.Require("schema");
    ConstraintFields(format, options).Schema("schema");
  });
}

// The older name of a format stands beside the newer one's place.
void ReadOutputConfig(FieldReader& reader, ChatRequest* request) {
  reader.ReadObject("output_config", [&](FieldReader& config) {
    std::string effort;
    config.Read("effort", &effort);
    if (!effort.empty()) request->prompt.template_kwargs["reasoning_effort"] = effort;
    ReadFormat(config, "format", &request->options);
  });
  ReadFormat(reader, "output_format", &request->options);
  ReconcileToolsWithConstraint(reader, "output_", request);
}

}  // namespace

void ReadCountTokensRequest(FieldReader& reader, ChatRequest* request) {
  ReadPrompt(reader, request);
}

void ReadMessagesRequest(FieldReader& reader, ChatRequest* request) {
  GenerationOptions& options = request->options;
  ReadPrompt(reader, request);
  reader.Require("max_tokens");
  reader.Read("max_tokens", &options.max_tokens, {.min = 1});
  reader.Read("stream", &options.stream);
  ReadCoreSampling(reader, &options.sampling);
  ReadStop(reader, "stop_sequences", &options.stop);
  ReadSeed(reader, &options);
  ReadOutputConfig(reader, request);
  reader.Read("cache_salt", &options.cache_salt);
  reader.Read("priority", &options.priority);
  RefuseUnsupported(reader, {{"mcp_servers"}, {"container"}});
}

}  // namespace kvasir::api
