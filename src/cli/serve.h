// `kvasir serve`: a model, its engine or a fleet of workers, and the HTTP server over it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "api/api_server.h"
#include "cli/kv_events.h"
#include "cli/model_config.h"
#include "cli/signals.h"
#include "core/engine_client.h"

namespace kvasir::cli {

struct ServeConfig {
  ModelConfig model;
  int32_t workers = 0;  // processes that compute; 0: this one does
  KvEventsConfig kv_events;

  std::string host = "127.0.0.1";
  uint16_t port = 8000;
  std::vector<std::string> api_keys;
  std::string api_keys_file;
  bool cache_salt_per_key = false;
  std::vector<std::string> allowed_origins;
  std::string tls_cert;
  std::string tls_key;
  int64_t max_body_bytes = 16 << 20;
  int64_t max_header_bytes = 32 << 10;
  int32_t max_connections = 1024;
  double request_timeout = 600;  // s
  double drain_timeout = 30;     // s
  int32_t http_threads = 2;
  int32_t text_threads = 1;
  std::string access_log;
  std::string log_level = "info";
};

// The HTTP server's.
void AddHttpOptions(Command& command, ServeConfig* config);
StatusOr<api::ApiOptions> MakeApiOptions(const ServeConfig& config);
// Whether there is something that SIGHUP can make the server read or open anew.
bool Reloads(const ServeConfig& config);

// Serves `engine` over HTTP until `stop`; then requests under way get `drain_timeout`.
Status ServeUntil(StopSignal& stop, EngineClient& engine, const api::ServedText& text,
                  api::ApiOptions options, Duration drain_timeout);

}  // namespace kvasir::cli
