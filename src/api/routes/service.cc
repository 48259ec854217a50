#include "api/routes/service.h"

#include <fmt/format.h>

#include <exception>
#include <utility>

#include "api/protocol/error.h"
#include "api/protocol/response.h"
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

void Continue(const std::shared_ptr<Exchange>& exchange, const StatusOr<Continuation>& prepared) {
  exchange->ReleaseBody();
  if (!prepared.ok()) return exchange->Respond(ErrorResponse(prepared.status()));
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

void ListModels(const Service& service, Exchange& exchange) {
  Json body;
  body["object"] = "list";
  body["data"] = Json::array({ModelJson(service.engine.Model(), service.created)});
  exchange.Respond({.body = Dump(body)});
}

void GetModel(const Service& service, Exchange& exchange) {
  constexpr std::string_view kPrefix = "/v1/models/";
  const Status status =
      CheckModel(service, PercentDecode(exchange.request().path.substr(kPrefix.size())));
  if (!status.ok()) return exchange.Respond(ErrorResponse(status));
  exchange.Respond({.body = Dump(ModelJson(service.engine.Model(), service.created))});
}

}  // namespace

void PrepareThen(Service& service, const std::shared_ptr<Exchange>& exchange,
                 std::function<StatusOr<Continuation>()> work) {
  if (exchange->request().body.size() <= kLargeBody) return Continue(exchange, Guarded(work));
  const bool taken = service.text_pool.Submit([exchange, work = std::move(work)] {
    StatusOr<Continuation> prepared = Guarded(work);
    exchange->Post([exchange, prepared = std::move(prepared)] { Continue(exchange, prepared); });
  });
  service.metrics.text_pool_waiting.Set(static_cast<double>(service.text_pool.waiting()));
  if (!taken) {
    exchange->Respond(ErrorResponse(
        absl::ResourceExhaustedError("too many large requests are waiting to be tokenized")));
  }
}

Status CheckModel(const Service& service, const std::string& model) {
  if (model.empty() || model == service.engine.Model().name) return absl::OkStatus();
  return WithCode(
      absl::NotFoundError(fmt::format("the model '{}' does not exist here; '{}' does",
                                      model.substr(0, 200), service.engine.Model().name)),
      "model_not_found");
}

void AddServiceRoutes(Service& service, Router& router) {
  router.Add("GET", "/v1/models", Access::kKey,
             [&service](const auto& exchange) { ListModels(service, *exchange); });
  router.Add("GET", "/v1/models/*", Access::kKey,
             [&service](const auto& exchange) { GetModel(service, *exchange); });
  router.Add("GET", "/health", Access::kOpen,
             [&service](const auto& exchange) { Health(service, false, *exchange); });
  router.Add("GET", "/ready", Access::kOpen,
             [&service](const auto& exchange) { Health(service, true, *exchange); });
  router.Add("GET", "/metrics", Access::kOpen, [&service](const auto& exchange) {
    exchange->Respond({.content_type = "text/plain; version=0.0.4; charset=utf-8",
                       .body = service.metrics.Serialize()});
  });
  router.Add("GET", "/version", Access::kOpen, [&service](const auto& exchange) {
    exchange->Respond({.body = Dump({{"version", service.version}})});
  });
}

}  // namespace kvasir::api
