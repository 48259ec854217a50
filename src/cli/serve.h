// `kvasir serve`: a model, an engine and the HTTP server over it, in this process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "api/api_server.h"
#include "cli/kv_events.h"
#include "cli/model_config.h"
#include "cli/signals.h"
#include "engine/local_engine.h"

namespace kvasir::cli {

struct ServeConfig {
  ModelConfig model;
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

// Serves `engine` over HTTP until `stop`; then requests under way get `drain_timeout`. Returns the
// error that ended the engine for good, if one did.
Status ServeUntil(StopSignal& stop, engine::LocalEngine& engine, const api::ServedText& text,
                  api::ApiOptions options, Duration drain_timeout);

}  // namespace kvasir::cli
