#include "api/protocol/chat_messages.h"
#include "api/protocol/error.h"
#include "api/protocol/generation_fields.h"
#include "api/protocol/request.h"

namespace kvasir::api {
namespace {

// Whose turn it is after the messages: a new one of the assistant's, or still that of the last.
void ReadTurn(FieldReader& reader, ChatPrompt* prompt) {
  reader.Read("continue_final_message", &prompt->continue_final_message);
  if (prompt->continue_final_message) prompt->add_generation_prompt = false;
  reader.Read("add_generation_prompt", &prompt->add_generation_prompt);
  if (prompt->continue_final_message && prompt->add_generation_prompt) {
    reader.Fail("continue_final_message", "contradicts add_generation_prompt");
  }
}

void ReadChatLogprobs(FieldReader& reader, SamplingParams* sampling) {
  bool logprobs = false;
  int32_t top = 0;
  reader.Read("logprobs", &logprobs);
  reader.Read("top_logprobs", &top, {0, kMaxTopLogprobs});
  if (top > 0 && !logprobs) return reader.Fail("top_logprobs", "needs logprobs to be true");
  if (logprobs) sampling->logprobs = top;
}

}  // namespace

void ReadChatPrompt(FieldReader& reader, ChatPrompt* prompt) {
  ReadMessages(reader, &prompt->messages);
  ReadTurn(reader, prompt);
  reader.ReadObject("chat_template_kwargs",
                    [&](FieldReader& kwargs) { prompt->template_kwargs = kwargs.object(); });
  RefuseUnsupported(reader, {{"chat_template"}, {"documents"}});
}

// A call leaves no content that a response_format could be of; the other fields mean all output.
void ReconcileToolsWithConstraint(FieldReader& reader, const char* format_field,
                                  ChatRequest* request) {
  const ToolChoice choice = request->tools.choice;
  if (choice != ToolChoice::kRequired && choice != ToolChoice::kNamed) return;
  GenerationOptions& options = request->options;
  if (options.constraint && !options.constraint_field.starts_with(format_field)) {
    reader.Fail(FieldError(options.constraint_field,
                           "contradicts tool_choice: an answer takes one constraint"));
  }
  options.constraint.reset();
}

void ReadChatRequest(FieldReader& reader, ChatRequest* request) {
  ReadGenerationOptions(reader, &request->options);
  ReadMaxTokens(reader, {"max_completion_tokens", "max_tokens"}, &request->options);
  if (request->options.max_tokens == 0) {
    reader.Fail(request->options.max_tokens_field, "must be at least 1");
  }
  ReadChatLogprobs(reader, &request->options.sampling);
  RefuseUnsupported(reader, {{"modalities", Json::array({"text"})},
                             {"audio"},
                             {"echo"},
                             {"functions"},
                             {"function_call", "none"}});
  ReadChatPrompt(reader, &request->prompt);
  ReadTools(reader, &request->tools);
  request->prompt.tools = request->tools.definitions;
  ReconcileToolsWithConstraint(reader, "response_format", request);
}

}  // namespace kvasir::api
