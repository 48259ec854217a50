#include <fmt/format.h>

#include <ctime>
#include <random>
#include <utility>

#include "api/generate/generation.h"
#include "api/generate/output_constraint.h"
#include "api/protocol/error.h"
#include "api/protocol/request.h"
#include "api/protocol/response.h"
#include "api/routes/service.h"

namespace kvasir::api {
namespace {

constexpr int32_t kDefaultCompletionTokens = 16;  // as in the OpenAI API

uint64_t RandomBits() {
  thread_local std::random_device device;
  return uint64_t{device()} << 32 | device();
}

std::string NewId(std::string_view prefix) {
  return fmt::format("{}-{:016x}{:016x}", prefix, RandomBits(), RandomBits());
}

// Letters and digits alone: what every template lets pass as an id.
std::string RandomLetters(size_t length) {
  constexpr std::string_view kLetters =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string out;
  while (out.size() < length) {
    uint64_t bits = RandomBits();
    for (int i = 0; i < 10 && out.size() < length; ++i) {
      out += kLetters[bits % kLetters.size()];
      bits /= kLetters.size();
    }
  }
  return out;
}

// Mistral's templates take ids of nine letters only.
std::string NewCallId(text::ToolFormat format) {
  const bool mistral =
      format == text::ToolFormat::kMistral || format == text::ToolFormat::kMistralArgs;
  return mistral ? RandomLetters(9) : "call_" + RandomLetters(24);
}

Status ReadBadWords(const Service& service, GenerationOptions* options) {
  if (options->bad_words.empty()) return absl::OkStatus();
  if (service.text.tokenizer == nullptr) {
    return FieldError("bad_words", "this model is served without a tokenizer");
  }
  KVASIR_ASSIGN_OR_RETURN(options->sampling.bad_words,
                          EncodeBadWords(*service.text.tokenizer, options->bad_words));
  return absl::OkStatus();
}

// Checks that need the server's configuration, and the draw of a seed that every replay repeats.
Status Complete(const Service& service, GenerationOptions* options) {
  KVASIR_RETURN_IF_ERROR(CheckModel(service, options->model));
  if (service.text.tokenizer == nullptr) {
    if (!options->stop.empty()) {
      return FieldError("stop", "this model is served without a tokenizer; use stop_token_ids");
    }
    if (options->constraint) {
      return FieldError(options->constraint_field, "this model is served without a tokenizer");
    }
    options->return_token_ids = true;  // the only answer there is
  }
  if (!options->has_seed) options->sampling.seed = RandomBits();
  return ReadBadWords(service, options);
}

struct PromptIds {
  std::vector<TokenId> ids;
  std::string field;
};

StatusOr<GenerationJob> MakeJob(const Service& service, const HttpRequest& http,
                                const std::string& id, GenerationOptions options,
                                std::vector<PromptIds> prompts, int32_t default_max_tokens) {
  GenerationJob job{.tokenizer = service.text.tokenizer};
  for (size_t i = 0; i < prompts.size(); ++i) {
    RequestContext context{.id = prompts.size() == 1 ? id : fmt::format("{}-{}", id, i),
                           .field = std::move(prompts[i].field),
                           .default_max_tokens = default_max_tokens,
                           .arrival = http.arrival,
                           .deadline = http.arrival + service.request_timeout};
    KVASIR_ASSIGN_OR_RETURN(
        std::shared_ptr<const Request> request,
        BuildRequest(service.engine.Model(), options, std::move(prompts[i].ids), context));
    job.requests.push_back(std::move(request));
  }
  job.options = std::move(options);
  return job;
}

AnswerHead MakeHead(const Service& service, const std::string& id,
                    const GenerationOptions& options) {
  return {.id = id,
          .created = std::time(nullptr),
          .model = service.engine.Model().name,
          .logprobs = options.sampling.logprobs >= 0,
          .token_ids = options.return_token_ids,
          .tokenizer = service.text.tokenizer};
}

// How this answer is to be read: without tools that may be called, nothing in it is a call.
StatusOr<text::OutputFormat> AnswerFormat(const Service& service, const ChatRequest& request) {
  text::OutputFormat format = service.text.format;
  if (request.tools.choice == ToolChoice::kNone) {
    format.tools = text::ToolFormat::kNone;
  } else if (format.tools == text::ToolFormat::kNone) {
    return FieldError("tools",
                      "this model's chat template has no known form of tool calls; the server's "
                      "--tool-call-parser can name one");
  }
  return format;
}

StatusOr<GenerationJob> PrepareChat(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(ChatRequest request, ParseChatRequest(json));
  KVASIR_RETURN_IF_ERROR(Complete(service, &request.options));
  KVASIR_ASSIGN_OR_RETURN(const text::OutputFormat format, AnswerFormat(service, request));
  const std::string id = NewId("chatcmpl");
  KVASIR_ASSIGN_OR_RETURN(EncodedChat chat, EncodeChat(service.text, request.prompt));
  const OutputRules rules{format, chat.reasoning, std::move(request.tools),
                          std::move(request.options.constraint)};
  request.options.constraint = OutputConstraint(rules, [&](std::string_view text) {
    return text::ControlToken(*service.text.tokenizer, text);
  });
  if (!rules.content) request.options.constraint_field = "tools";
  KVASIR_ASSIGN_OR_RETURN(GenerationJob job, MakeJob(service, http, id, std::move(request.options),
                                                     {{std::move(chat.ids), "messages"}}, 0));
  job.continues_prompt = request.prompt.continue_final_message;
  job.format = format;
  job.reasoning = chat.reasoning;
  job.new_call_id = [tools = format.tools] { return NewCallId(tools); };
  job.writer = ChatAnswer(MakeHead(service, id, job.options));
  return job;
}

StatusOr<GenerationJob> PrepareCompletion(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(CompletionRequest request, ParseCompletionRequest(json));
  KVASIR_RETURN_IF_ERROR(Complete(service, &request.options));
  const std::string id = NewId("cmpl");
  std::vector<PromptIds> prompts;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    PromptIds prompt{.field = request.batch ? fmt::format("prompt[{}]", i) : "prompt"};
    KVASIR_ASSIGN_OR_RETURN(prompt.ids,
                            EncodePrompt(service.text, request.prompts[i],
                                         request.options.add_special_tokens, prompt.field));
    prompts.push_back(std::move(prompt));
  }
  KVASIR_ASSIGN_OR_RETURN(GenerationJob job, MakeJob(service, http, id, std::move(request.options),
                                                     std::move(prompts), kDefaultCompletionTokens));
  job.continues_prompt = true;
  job.writer = CompletionAnswer(MakeHead(service, id, job.options));
  return job;
}

// The engine compiles a constraint too, and finds it compiled. Here a client learns at once and by
// the name of its field what is wrong, and no thread that serves connections waits.
Status CompileConstraint(const Service& service, const GenerationJob& job) {
  const std::optional<Constraint>& constraint = job.requests.front()->constraint;
  const Status compiled = service.text.grammars->Compile(*constraint).status();
  if (!absl::IsInvalidArgument(compiled)) return compiled;
  return FieldError(job.options.constraint_field, std::string(compiled.message()));
}

void CompileThenStart(Service& service, const std::shared_ptr<Exchange>& exchange,
                      const std::shared_ptr<GenerationJob>& job) {
  const auto start = [&service, exchange, job] {
    StartGeneration(service.engine, service.metrics, exchange, std::move(*job));
  };
  // Without a compiler it is for the engine to refuse.
  if (!job->requests.front()->constraint || service.text.grammars == nullptr) return start();
  const bool taken = service.constraint_pool.Submit([&service, exchange, job, start] {
    const Status compiled = CompileConstraint(service, *job);
    exchange->Post([exchange, compiled, start] {
      compiled.ok() ? start() : exchange->Respond(ErrorResponse(compiled));
    });
  });
  if (!taken) {
    exchange->Respond(ErrorResponse(
        absl::ResourceExhaustedError("too many constraints are waiting to be compiled")));
  }
}

using PrepareFunction = StatusOr<GenerationJob> (*)(const Service&, const HttpRequest&);

Handler GenerationHandler(Service& service, PrepareFunction prepare) {
  return [&service, prepare](const std::shared_ptr<Exchange>& exchange) {
    PrepareThen(service, exchange, [&service, exchange, prepare]() -> StatusOr<Continuation> {
      KVASIR_ASSIGN_OR_RETURN(GenerationJob prepared, prepare(service, exchange->request()));
      auto job = std::make_shared<GenerationJob>(std::move(prepared));
      return [&service, exchange, job] { CompileThenStart(service, exchange, job); };
    });
  };
}

}  // namespace

void AddGenerationRoutes(Service& service, Router& router) {
  router.Add("POST", "/v1/chat/completions", Access::kKey,
             GenerationHandler(service, &PrepareChat));
  router.Add("POST", "/v1/completions", Access::kKey,
             GenerationHandler(service, &PrepareCompletion));
}

}  // namespace kvasir::api
