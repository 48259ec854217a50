#include <ctime>
#include <utility>

#include "api/protocol/ollama_api.h"
#include "api/routes/prepare.h"
#include "api/routes/service.h"

namespace kvasir::api {
namespace {

constexpr const char* kLines = "application/x-ndjson";
// The version of Ollama's API that this is; clients ask for it to know what they may send.
constexpr const char* kApiVersion = "0.9.0";

StatusOr<GenerationJob> PrepareOllamaChat(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(ChatRequest request, ReadBody(json, &ReadOllamaChat));
  KVASIR_ASSIGN_OR_RETURN(GenerationJob job,
                          PrepareChat(service, http, NewId("ollama-"), std::move(request)));
  job.writer = OllamaAnswer(OllamaShape::kChat, service.engine.Model().name, http.arrival);
  return job;
}

StatusOr<GenerationJob> PreparePlain(const Service& service, const HttpRequest& http,
                                     OllamaGenerate request) {
  GenerationOptions& options = request.chat.options;
  KVASIR_RETURN_IF_ERROR(CompleteOptions(service, &options));
  PromptIds prompt{.field = "prompt"};
  if (request.suffix.empty()) {
    KVASIR_ASSIGN_OR_RETURN(prompt.ids,
                            EncodePrompt(service.text, request.prompt, true, prompt.field));
  } else {
    KVASIR_ASSIGN_OR_RETURN(prompt.ids, EncodeInfill(service.text, request.prompt, request.suffix));
  }
  KVASIR_ASSIGN_OR_RETURN(
      GenerationJob job,
      PreparePrompts(service, http, NewId("ollama-"), std::move(options), {std::move(prompt)}, 0));
  job.continues_prompt = true;
  return job;
}

StatusOr<GenerationJob> PrepareOllamaGenerate(const Service& service, const HttpRequest& http,
                                              OllamaGenerate request) {
  const bool plain = request.raw || !request.suffix.empty();
  StatusOr<GenerationJob> job =
      plain ? PreparePlain(service, http, std::move(request))
            : PrepareChat(service, http, NewId("ollama-"), std::move(request.chat));
  KVASIR_RETURN_IF_ERROR(job.status());
  job->writer = OllamaAnswer(OllamaShape::kGenerate, service.engine.Model().name, http.arrival);
  return job;
}

// A request without a prompt only asks for the model to be loaded, as it is.
StatusOr<Json> Loaded(const Service& service, const OllamaGenerate& request) {
  KVASIR_RETURN_IF_ERROR(CheckModel(service, request.chat.options.model));
  return Json{{"model", service.engine.Model().name},
              {"created_at", Rfc3339(std::time(nullptr))},
              {"response", ""},
              {"done", true},
              {"done_reason", "load"}};
}

StatusOr<Continuation> AnswerGenerate(Service& service, const std::shared_ptr<Exchange>& exchange) {
  const HttpRequest& http = exchange->request();
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(OllamaGenerate request, ReadBody(json, &ReadOllamaGenerate));
  if (request.prompt.empty() && request.suffix.empty()) {
    KVASIR_ASSIGN_OR_RETURN(const Json loaded, Loaded(service, request));
    return [exchange, text = Dump(loaded)] { exchange->Respond({.body = text}); };
  }
  KVASIR_ASSIGN_OR_RETURN(GenerationJob job,
                          PrepareOllamaGenerate(service, http, std::move(request)));
  return StartJob(service, exchange, std::move(job), &OllamaError);
}

Json ModelEntry(const Service& service) {
  const ModelInfo& model = service.engine.Model();
  return OllamaModel(model.name + ":latest", model.weights_fingerprint, service.created);
}

void Tags(Service& service, Exchange& exchange) {
  exchange.Respond({.body = Dump({{"models", Json::array({ModelEntry(service)})}})});
}

void Running(Service& service, Exchange& exchange) {
  Json entry = ModelEntry(service);
  entry["expires_at"] = "9999-12-31T23:59:59Z";  // it is served as long as the server runs
  entry["size_vram"] = 0;
  exchange.Respond({.body = Dump({{"models", Json::array({std::move(entry)})}})});
}

void ApiVersion(Service&, Exchange& exchange) {
  exchange.Respond({.body = Dump({{"version", kApiVersion}})});
}

StatusOr<Json> Show(const Service& service, const Json& body) {
  KVASIR_ASSIGN_OR_RETURN(const OllamaShow request, ReadBody(body, &ReadOllamaShow));
  KVASIR_RETURN_IF_ERROR(CheckModel(service, request.model));
  Json out = {{"modelfile", ""}, {"parameters", ""}, {"template", ""}};
  out["details"] = ModelEntry(service)["details"];
  out["model_info"] = {{"general.architecture", "kvasir"},
                       {"kvasir.context_length", service.engine.Model().max_model_len}};
  out["capabilities"] = {"completion"};
  if (service.text.format.tools != text::ToolFormat::kNone) out["capabilities"].push_back("tools");
  if (service.text.format.reasoning != text::ReasoningFormat::kNone) {
    out["capabilities"].push_back("thinking");
  }
  out["modified_at"] = Rfc3339(service.created);
  return out;
}

}  // namespace

void AddOllamaRoutes(Service& service, Router& router) {
  AddRoute(service, router,
           {.method = "POST",
            .path = "/api/chat",
            .summary = "an answer to messages, in Ollama's shapes",
            .body = DescribeBody(&ReadOllamaChat),
            .errors = {404, 408},
            .stream = kLines},
           GenerationHandler(service, &PrepareOllamaChat, &OllamaError));
  AddRoute(service, router,
           {.method = "POST",
            .path = "/api/generate",
            .summary = "an answer to a prompt, in Ollama's shapes",
            .body = DescribeBody(&ReadOllamaGenerate),
            .errors = {404, 408},
            .stream = kLines},
           [&service](const std::shared_ptr<Exchange>& exchange) {
             PrepareThen(
                 service, exchange,
                 [&service, exchange] { return AnswerGenerate(service, exchange); }, &OllamaError);
           });
  AddRoute(service, router,
           {.method = "POST",
            .path = "/api/show",
            .summary = "what Ollama's clients ask of a model",
            .body = DescribeBody(&ReadOllamaShow),
            .errors = {404}},
           BodyHandler(service, &Show, &OllamaError));
  const auto get = [&](const char* path, const char* summary, void (*answer)(Service&, Exchange&)) {
    AddRoute(service, router, {.method = "GET", .path = path, .summary = summary},
             [&service, answer](const auto& exchange) { answer(service, *exchange); });
  };
  get("/api/tags", "the models served, in Ollama's shapes", &Tags);
  get("/api/ps", "the models loaded, in Ollama's shapes", &Running);
  get("/api/version", "the version of Ollama's API that this server speaks", &ApiVersion);
}

}  // namespace kvasir::api
