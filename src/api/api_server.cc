#include "api/api_server.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <utility>

#include "api/access/caller.h"
#include "api/http/access_log.h"
#include "api/http/line_file.h"
#include "api/http/router.h"
#include "api/metrics.h"
#include "api/routes/service.h"
#include "api/text_pool.h"
#include "base/log.h"

namespace kvasir::api {
namespace {

constexpr int kConstraintThreads = 4;

class Server final : public ApiServer {
 public:
  Server(EngineClient& engine, ServedText text, const ApiOptions& options, KeyRing keys)
      : metrics_(engine, options.more_metrics),
        text_pool_(options.text_threads, options.max_waiting_texts),
        constraint_pool_(kConstraintThreads, options.max_waiting_texts),
        service_{.engine = engine,
                 .text = text,
                 .metrics = metrics_,
                 .text_pool = text_pool_,
                 .constraint_pool = constraint_pool_,
                 .request_timeout = options.request_timeout,
                 .pooling = options.pooling,
                 .version = options.version},
        router_({.keys = std::move(keys), .allowed_origins = options.allowed_origins}) {
    AddOpenAiRoutes(service_, router_);
    AddResponsesRoutes(service_, router_);
    AddMessagesRoutes(service_, router_);
    AddEmbeddingRoutes(service_, router_);
    AddOllamaRoutes(service_, router_);
    AddSglangRoutes(service_, router_);
    AddTextRoutes(service_, router_);
    AddServiceRoutes(service_, router_);
  }

  ~Server() override {
    http_.reset();
    text_pool_.Stop();  // before the service that its work refers to
    constraint_pool_.Stop();
  }

  Status OpenAccessLog(const std::string& path) {
    if (path.empty()) return absl::OkStatus();
    const auto count = [this](int64_t lines) {
      metrics_.access_log_dropped.Increment(static_cast<double>(lines));
    };
    StatusOr<std::unique_ptr<LineFile>> opened = LineFile::Open({.path = path, .on_drop = count});
    if (!opened.ok()) {
      return absl::UnavailableError(
          fmt::format("access-log: {}", std::string(opened.status().message())));
    }
    access_log_ = *std::move(opened);
    return absl::OkStatus();
  }

  Status Listen(HttpServerOptions options, Duration request_timeout) {
    options.on_answer = [this](int status) { CountAnswer(status); };
    options.on_connections = [this](int delta) { metrics_.http_connections.Increment(delta); };
    options.answer_headers = &LimitHeaders;
    options.on_end = [this](const HttpRequest& request, const ExchangeRecord& record) {
      EndVisit(request, record);
      if (access_log_ == nullptr) return;
      access_log_->Write(AccessLogLine(request, record, std::chrono::system_clock::now()));
    };
    // The engine ends a late request itself; this is for an engine that doesn't.
    options.answer_timeout = request_timeout + std::chrono::seconds(5);
    KVASIR_ASSIGN_OR_RETURN(
        http_, HttpServer::Start(std::move(options),
                                 [this](std::shared_ptr<Exchange> exchange) { Handle(exchange); }));
    return absl::OkStatus();
  }

  void Handle(const std::shared_ptr<Exchange>& exchange) override { router_.Handle(exchange); }

  uint16_t port() const override { return http_->port(); }

  void Drain(Duration timeout) override {
    service_.draining = true;
    http_->Drain(timeout);
  }

  void Reload() override {
    if (access_log_ != nullptr) access_log_->Reopen();
    const Status reloaded = http_->ReloadTls();
    if (!reloaded.ok()) spdlog::error("{}", std::string(reloaded.message()));
  }

 private:
  static HttpHeaders LimitHeaders(const HttpRequest& request) {
    if (request.caller == nullptr || request.caller->budget == nullptr) return {};
    return request.caller->budget->Headers(SteadyClock().Now());
  }

  static void EndVisit(const HttpRequest& request, const ExchangeRecord& record) {
    if (request.visit == nullptr) return;
    request.visit->End(record.prompt_tokens.value_or(0) + record.completion_tokens.value_or(0),
                       SteadyClock().Now());
  }

  void CountAnswer(int status) {
    if (status >= 500) {
      metrics_.http_5xx.Increment();
    } else {
      (status >= 400 ? metrics_.http_4xx : metrics_.http_2xx).Increment();
    }
  }

  Metrics metrics_;
  std::unique_ptr<LineFile> access_log_;  // null: none
  TextPool text_pool_;
  TextPool constraint_pool_;
  Service service_;
  Router router_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace

StatusOr<std::unique_ptr<ApiServer>> ApiServer::Start(EngineClient& engine, ServedText text,
                                                      ApiOptions options) {
  KVASIR_ASSIGN_OR_RETURN(KeyRing keys, KeyRing::Make(options.keys));
  auto server = std::make_unique<Server>(engine, text, options, std::move(keys));
  KVASIR_RETURN_IF_ERROR(server->OpenAccessLog(options.access_log));
  KVASIR_RETURN_IF_ERROR(server->Listen(options.http, options.request_timeout));
  return StatusOr<std::unique_ptr<ApiServer>>(std::move(server));
}

StatusOr<std::unique_ptr<ApiServer>> ApiServer::Create(EngineClient& engine, ServedText text,
                                                       ApiOptions options) {
  return std::make_unique<Server>(engine, text, options, KeyRing());
}

}  // namespace kvasir::api
