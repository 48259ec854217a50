#include "cli/serve.h"

#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "api/access/keys_file.h"
#include "api/api_server.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/serve_fleet.h"

namespace kvasir::cli {
namespace {

constexpr int kMany = 1 << 20;
constexpr int kMostWorkers = 256;

std::string UrlHost(const std::string& host) {
  return host.find(':') == std::string::npos ? host : "[" + host + "]";
}

// This process computes.
Status ServeAlone(const ServeConfig& config, api::ApiOptions api_options, StopSignal& stop) {
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<cluster::KvEventPublisher> kv_events,
                          StartKvEvents(config.kv_events));
  if (kv_events) api_options.more_metrics.push_back(KvEventMetrics(kv_events));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<RunningModel> model,
                          StartModel(
                              config.model, [&](const Status&) { stop.Raise(); },
                              kv_events ? &kv_events->listener() : nullptr));
  KVASIR_RETURN_IF_ERROR(ServeUntil(stop, *model->engine, model->text(), std::move(api_options),
                                    FromSeconds(config.drain_timeout)));
  return model->engine->Drain(Duration::zero());
}

StatusOr<int> Serve(const ServeConfig& config, const Command& command) {
  KVASIR_RETURN_IF_ERROR(InitLog(config.log_level));
  KVASIR_ASSIGN_OR_RETURN(api::ApiOptions api_options, MakeApiOptions(config));
  if (config.workers > 0 && !config.kv_events.endpoint.empty()) {
    return absl::InvalidArgumentError(
        "kv-events-endpoint: with --workers there are several caches; start kvasir worker with an "
        "endpoint for each, and kvasir frontend over them");
  }
  StopSignal stop(Reloads(config));
  if (config.workers == 0) {
    KVASIR_RETURN_IF_ERROR(ServeAlone(config, std::move(api_options), stop));
  } else {
    KVASIR_RETURN_IF_ERROR(
        ServeWithProcesses(config, command.Given(kModelOptions), std::move(api_options), stop));
  }
  return 0;
}

}  // namespace

StatusOr<api::ApiOptions> MakeApiOptions(const ServeConfig& config) {
  api::ApiOptions options{
      .keys = {.plain_keys = config.api_keys, .salt_per_key = config.cache_salt_per_key},
      .allowed_origins = config.allowed_origins,
      .request_timeout = FromSeconds(config.request_timeout),
      .text_threads = config.text_threads,
      .pooling = PoolingOf(config.model),
      .version = KVASIR_VERSION,
      .access_log = config.access_log};
  if (!config.api_keys_file.empty()) {
    KVASIR_ASSIGN_OR_RETURN(options.keys.keys, api::ReadKeysFile(config.api_keys_file));
  }
  options.http.host = config.host;
  options.http.port = config.port;
  options.http.tls_cert = config.tls_cert;
  options.http.tls_key = config.tls_key;
  options.http.threads = config.http_threads;
  options.http.max_connections = config.max_connections;
  options.http.max_header_bytes = static_cast<size_t>(config.max_header_bytes);
  options.http.max_body_bytes = static_cast<size_t>(config.max_body_bytes);
  return options;
}

bool Reloads(const ServeConfig& config) {
  const bool log_file = !config.access_log.empty() && config.access_log != "-";
  return log_file || !config.tls_cert.empty();
}

void AddHttpOptions(Command& command, ServeConfig* config) {
  command.Add("host", &config->host, "Address to listen on");
  command.Add("port", &config->port, "Port to listen on (0: any free one)");
  command.Add("api-key", &config->api_keys, "Key that clients must send; may be repeated")
      ->default_str("");
  command.Add("api-keys-file", &config->api_keys_file,
              "TOML file of [[keys]]: name, key or key_sha256, and as wanted priority, "
              "requests_per_minute, tokens_per_minute, max_concurrent, cache_salt");
  command.AddSwitch("cache-salt-per-key", &config->cache_salt_per_key,
                    "Share no cached prefix between API keys that have no cache_salt");
  command.Add("tls-cert", &config->tls_cert,
              "PEM file of the certificate and its chain: serve HTTPS; SIGHUP reads it again");
  command.Add("tls-key", &config->tls_key, "PEM file of the certificate's key");
  command.Add("allowed-origins", &config->allowed_origins,
              "Origins whose pages browsers let in (CORS), '*' for all; may be repeated");
  command.AddBytes("max-body-bytes", &config->max_body_bytes, "Largest request body");
  command.AddBytes("max-header-bytes", &config->max_header_bytes, "Largest request header");
  command.Add("max-connections", &config->max_connections, "Open connections")
      ->check(CLI::Range(1, kMany));
  command.Add("request-timeout", &config->request_timeout, "Seconds until a request is ended")
      ->check(CLI::Range(0.1, 1e6));
  command
      .Add("drain-timeout", &config->drain_timeout,
           "Seconds that requests under way get after SIGTERM")
      ->check(CLI::Range(0.0, 1e6));
  command.Add("http-threads", &config->http_threads, "Threads for connections")
      ->check(CLI::Range(1, 64));
  command.Add("text-threads", &config->text_threads, "Threads for tokenizing long inputs")
      ->check(CLI::Range(1, 64));
  command.Add("access-log", &config->access_log,
              "File for a JSON line a request ('-': standard output); SIGHUP opens it anew");
  command.Add("log-level", &config->log_level, "trace, debug, info, warn, error or off");
}

Status ServeUntil(StopSignal& stop, EngineClient& engine, const api::ServedText& text,
                  api::ApiOptions options, Duration drain_timeout) {
  const std::string host = UrlHost(options.http.host);
  const char* scheme = options.http.tls_cert.empty() ? "http" : "https";
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<api::ApiServer> server,
                          api::ApiServer::Start(engine, text, std::move(options)));
  const std::string url = fmt::format("{}://{}:{}", scheme, host, server->port());
  spdlog::info("serving {} on {}", engine.Model().name, url);
  fmt::print("Kvasir serves {} on {}\n", engine.Model().name, url);
  std::fflush(stdout);
  stop.Wait([&] { server->Reload(); });
  spdlog::info("shutting down");
  server->Drain(drain_timeout);
  return absl::OkStatus();
}

std::unique_ptr<Command> ServeCommand(CLI::App& program) {
  auto config = std::make_shared<ServeConfig>();
  auto self = std::make_shared<Command*>(nullptr);
  auto command = std::make_unique<Command>(program, "serve", "Serve a model over HTTP.",
                                           [config, self] { return Serve(*config, **self); });
  *self = command.get();
  command->AddPositional("model", &config->model.model, kModelHelp);
  AddModelOptions(*command, &config->model);
  AddHttpOptions(*command, config.get());
  command
      ->Add("workers", &config->workers,
            "Processes that compute, on this machine; one that dies is started again, and its "
            "streams go on in the others (0: this process computes)")
      ->check(CLI::Range(0, kMostWorkers));
  AddKvEventsOptions(*command, &config->kv_events);
  command->AddConfigFile();
  return command;
}

}  // namespace kvasir::cli
