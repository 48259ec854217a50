#include "api/routes/service.h"

#include <fmt/format.h>

#include <exception>
#include <utility>

#include "api/protocol/error.h"
#include "api/protocol/openai_answer.h"
#include "base/log.h"

namespace kvasir::api {
namespace {

constexpr size_t kLargeBody = 8 << 10;  // bytes

StatusOr<Continuation> Guarded(const std::function<StatusOr<Continuation>()>& work) {
  try {
    return work();
  } catch (const std::exception& e) {
    spdlog::error("preparing a request: {}", e.what());
    return absl::InternalError("internal error");
  }
}

void Continue(const std::shared_ptr<Exchange>& exchange, const StatusOr<Continuation>& prepared,
              ErrorFunction error) {
  exchange->ReleaseBody();
  if (!prepared.ok()) return exchange->Respond(error(ToErrorObject(prepared.status())));
  (*prepared)();
}

std::string PercentDecode(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
        digit(text[i + 2]) >= 0) {
      out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

void Health(const Service& service, bool ready, Exchange& exchange) {
  if (!service.engine.Healthy()) {
    return exchange.Respond(ErrorResponse(absl::UnavailableError("the engine does not respond")));
  }
  if (ready && service.draining) {
    return exchange.Respond(ErrorResponse(absl::UnavailableError("the server is shutting down")));
  }
  exchange.Respond({.body = R"({"status":"ok"})"});
}

void Alive(Service& service, Exchange& exchange) { Health(service, false, exchange); }
void Ready(Service& service, Exchange& exchange) { Health(service, true, exchange); }

void ShowMetrics(Service& service, Exchange& exchange) {
  exchange.Respond({.content_type = "text/plain; version=0.0.4; charset=utf-8",
                    .body = service.metrics.Serialize()});
}

void Version(Service& service, Exchange& exchange) {
  exchange.Respond({.body = Dump({{"version", service.version}})});
}

void Describe(Service& service, Exchange& exchange) {
  exchange.Respond({.body = Dump(service.openapi.Document())});
}

void ListModels(Service& service, Exchange& exchange) {
  Json body;
  body["object"] = "list";
  body["data"] = Json::array({ModelJson(service.engine.Model(), service.created)});
  exchange.Respond({.body = Dump(body)});
}

void GetModel(Service& service, Exchange& exchange) {
  constexpr std::string_view kPrefix = "/v1/models/";
  const Status status =
      CheckModel(service, PercentDecode(exchange.request().path.substr(kPrefix.size())));
  if (!status.ok()) return exchange.Respond(ErrorResponse(status));
  exchange.Respond({.body = Dump(ModelJson(service.engine.Model(), service.created))});
}

}  // namespace

void PrepareThen(Service& service, const std::shared_ptr<Exchange>& exchange,
                 std::function<StatusOr<Continuation>()> work, ErrorFunction error) {
  if (exchange->request().body.size() <= kLargeBody)
    return Continue(exchange, Guarded(work), error);
  const bool taken = service.text_pool.Submit([exchange, error, work = std::move(work)] {
    StatusOr<Continuation> prepared = Guarded(work);
    exchange->Post(
        [exchange, error, prepared = std::move(prepared)] { Continue(exchange, prepared, error); });
  });
  service.metrics.text_pool_waiting.Set(static_cast<double>(service.text_pool.waiting()));
  if (!taken) {
    exchange->Respond(error(ToErrorObject(
        absl::ResourceExhaustedError("too many large requests are waiting to be tokenized"))));
  }
}

Handler BodyHandler(Service& service, BodyFunction function, ErrorFunction error) {
  return [&service, function, error](const std::shared_ptr<Exchange>& exchange) {
    const auto work = [&service, exchange, function]() -> StatusOr<Continuation> {
      KVASIR_ASSIGN_OR_RETURN(const Json body, ParseJsonObject(exchange->request().body));
      KVASIR_ASSIGN_OR_RETURN(const Json answer, function(service, body));
      return [exchange, text = Dump(answer)] { exchange->Respond({.body = text}); };
    };
    PrepareThen(service, exchange, work, error);
  };
}

void AddRoute(Service& service, Router& router, Operation operation, Handler handler) {
  router.Add(operation.method, operation.path, operation.needs_key ? Access::kKey : Access::kOpen,
             std::move(handler));
  service.openapi.Add(std::move(operation));
}

Status CheckModel(const Service& service, const std::string& model) {
  if (model.empty() || model == service.engine.Model().name) return absl::OkStatus();
  return WithCode(
      absl::NotFoundError(fmt::format("the model '{}' does not exist here; '{}' does",
                                      model.substr(0, 200), service.engine.Model().name)),
      "model_not_found");
}

void AddServiceRoutes(Service& service, Router& router) {
  const auto get = [&](const char* path, const char* summary, void (*answer)(Service&, Exchange&),
                       Operation operation = {}) {
    operation.method = "GET";
    operation.path = path;
    operation.summary = summary;
    AddRoute(service, router, std::move(operation),
             [&service, answer](const auto& exchange) { answer(service, *exchange); });
  };
  get("/v1/models", "the models served", &ListModels);
  get("/v1/models/*", "one model", &GetModel, {.errors = {404}});
  get("/health", "whether the engine responds", &Alive, {.needs_key = false});
  get("/ready", "whether new requests are taken", &Ready, {.needs_key = false});
  get("/metrics", "counters in the Prometheus text format", &ShowMetrics,
      {.answer = "text/plain", .needs_key = false});
  get("/version", "the server's version", &Version, {.needs_key = false});
  get("/openapi.json", "this description", &Describe, {.needs_key = false});
}

}  // namespace kvasir::api
