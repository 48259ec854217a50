#include "api/routes/prepare.h"

#include <fmt/format.h>

#include <ctime>
#include <random>
#include <utility>

#include "api/access/apply_caller.h"
#include "api/generate/output_constraint.h"
#include "api/protocol/error.h"

namespace kvasir::api {
namespace {

uint64_t RandomBits() {
  thread_local std::random_device device;
  return uint64_t{device()} << 32 | device();
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
    exchange->Post([exchange, compiled, start, job] {
      compiled.ok() ? start() : exchange->Respond(job->error(ToErrorObject(compiled)));
    });
  });
  if (!taken) {
    exchange->Respond(job->error(ToErrorObject(
        absl::ResourceExhaustedError("too many constraints are waiting to be compiled"))));
  }
}

}  // namespace

Status CompleteOptions(const Service& service, GenerationOptions* options) {
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

std::string NewId(std::string_view prefix) {
  return fmt::format("{}{:016x}{:016x}", prefix, RandomBits(), RandomBits());
}

StatusOr<GenerationJob> PreparePrompts(const Service& service, const HttpRequest& http,
                                       const std::string& id, GenerationOptions options,
                                       std::vector<PromptIds> prompts, int32_t default_max_tokens) {
  ApplyCaller(http, &options);
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
  KVASIR_RETURN_IF_ERROR(ReserveTokens(http, job.requests, options, SteadyClock().Now()));
  job.options = std::move(options);
  return job;
}

StatusOr<std::vector<PromptIds>> EncodePrompts(const Service& service, const TextOrIdsList& prompts,
                                               bool add_special_tokens, const std::string& field) {
  std::vector<PromptIds> out;
  for (size_t i = 0; i < prompts.items.size(); ++i) {
    PromptIds prompt{.field = prompts.batch ? fmt::format("{}[{}]", field, i) : field};
    KVASIR_ASSIGN_OR_RETURN(
        prompt.ids, EncodePrompt(service.text, prompts.items[i], add_special_tokens, prompt.field));
    out.push_back(std::move(prompt));
  }
  return out;
}

AnswerHead MakeHead(const Service& service, const std::string& id,
                    const GenerationOptions& options) {
  return {.id = id,
          .created = std::time(nullptr),
          .model = service.engine.Model().name,
          .logprobs = options.sampling.logprobs >= 0,
          .token_ids = options.return_token_ids,
          .prompt_logprobs = options.prompt_logprobs,
          .include_usage = options.include_usage,
          .continuous_usage = options.continuous_usage,
          .tokenizer = service.text.tokenizer};
}

StatusOr<GenerationJob> PrepareChat(const Service& service, const HttpRequest& http,
                                    const std::string& id, ChatRequest request) {
  KVASIR_RETURN_IF_ERROR(CompleteOptions(service, &request.options));
  KVASIR_ASSIGN_OR_RETURN(const text::OutputFormat format, AnswerFormat(service, request));
  KVASIR_ASSIGN_OR_RETURN(EncodedChat chat, EncodeChat(service.text, request.prompt));
  const OutputRules rules{format, chat.reasoning, std::move(request.tools),
                          std::move(request.options.constraint)};
  request.options.constraint = OutputConstraint(rules, [&](std::string_view text) {
    return text::ControlToken(*service.text.tokenizer, text);
  });
  if (!rules.content) request.options.constraint_field = "tools";
  KVASIR_ASSIGN_OR_RETURN(GenerationJob job,
                          PreparePrompts(service, http, id, std::move(request.options),
                                         {{std::move(chat.ids), "messages"}}, 0));
  job.continues_prompt = request.prompt.continue_final_message;
  job.format = format;
  job.reasoning = chat.reasoning;
  job.new_call_id = [tools = format.tools] { return NewCallId(tools); };
  return job;
}

Continuation StartJob(Service& service, const std::shared_ptr<Exchange>& exchange,
                      GenerationJob job, ErrorFunction error) {
  job.error = error;
  auto shared = std::make_shared<GenerationJob>(std::move(job));
  return [&service, exchange, shared] { CompileThenStart(service, exchange, shared); };
}

Handler GenerationHandler(Service& service, PrepareFunction prepare, ErrorFunction error) {
  return [&service, prepare, error](const std::shared_ptr<Exchange>& exchange) {
    const auto work = [&service, exchange, prepare, error]() -> StatusOr<Continuation> {
      KVASIR_ASSIGN_OR_RETURN(GenerationJob job, prepare(service, exchange->request()));
      return StartJob(service, exchange, std::move(job), error);
    };
    PrepareThen(service, exchange, work, error);
  };
}

}  // namespace kvasir::api
